"""`budcluster deployments logs` and `attempts`: what the model runtimes print, and what failed ones printed."""

import sys
import time
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from budcluster.cli.client import INTERRUPTED, PATIENCE_S, RECONNECT_S, UNREACHABLE, Api, CutOff, ServerEvent, fail
from budcluster.cli.output import Json, age, print_json, print_table

NameOrId = Annotated[str, typer.Argument(help="Name or id of the deployment.", metavar="DEPLOYMENT")]

_WAS_UP_S: Final = 15.0
"""A connection that lasted so long was one, and no try to make one."""


def logs(  # noqa: PLR0917 - typer makes an option of each
    deployment: NameOrId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until interrupted.")] = False,
    previous: Annotated[bool, typer.Option(help="Of the run before a restart.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Last lines of each container.")] = None,
    since: Annotated[str | None, typer.Option(help="Seconds ago, or a time such as 2026-11-24T10:00:00Z.")] = None,
    container: Annotated[str | None, typer.Option("--container", "-c", help="Only this container.")] = None,
    pod: Annotated[str | None, typer.Option(help="Only this pod.")] = None,
    attempt: Annotated[UUID | None, typer.Option(help="Kept log of a failed run; `attempts` lists them.")] = None,
    timestamps: Annotated[bool, typer.Option(help="Begin each line with its time.")] = False,
) -> None:
    """Show the logs of a deployment's pods."""
    if attempt and (follow or previous or since or container or pod or timestamps):
        raise typer.BadParameter("only --tail goes with it", param_hint="--attempt")
    if follow and previous:
        raise typer.BadParameter("a run that has ended cannot be followed", param_hint="--previous")
    api = Api()
    path = f"/deployments/{api.find('deployments', deployment)['id']}/logs"
    which = {"container": container, "pod": pod}
    first = {"tail": tail, "since": since}
    try:
        if follow:
            _Following(api, path, which, timestamps=timestamps).run(first)
        else:
            flags = {name: "true" for name, given in (("previous", previous), ("timestamps", timestamps)) if given}
            _show(api, path, {**which, **first, **flags, "attempt": str(attempt) if attempt else None})
    except (KeyboardInterrupt, BrokenPipeError):
        raise typer.Exit(INTERRUPTED if follow else 0) from None


def attempts(deployment: NameOrId, json: Json = False) -> None:
    """List failed runs whose logs were kept; `logs --attempt ID` shows one."""
    api = Api()
    found = api.get(f"/deployments/{api.find('deployments', deployment)['id']}/attempts")["items"]
    if json:
        return print_json(found)
    return print_table(
        found,
        [
            ("POD", lambda a: a["pod"]),
            ("CONTAINER", lambda a: a["container"]),
            ("RESTART", lambda a: a["restart"]),
            ("EXIT", lambda a: a["exit_code"]),
            ("CAUSE", lambda a: a["finding"] or a["reason"]),
            ("LINES", lambda a: a["lines"]),
            ("ENDED", lambda a: age(a["finished_at"])),
            ("ID", lambda a: a["id"]),
        ],
        empty="No run has failed.",
    )


def _show(api: Api, path: str, query: dict[str, Any]) -> None:
    with api.stream(path, headers={"Accept": "text/plain"}, **query) as answer:
        for text in answer.iter_text():
            _print(text)


class _Following:
    """Lines as they come, over as many connections as it takes: each goes on where the one before was cut."""

    def __init__(self, api: Api, path: str, which: dict[str, Any], *, timestamps: bool) -> None:
        self._api = api
        self._path = path
        self._which = which
        self._timestamps = timestamps
        self._place: str | None = None
        self._sources: set[tuple[str, str]] = set()

    def run(self, first: dict[str, Any]) -> None:
        """Until there is no more. `first` is asked for only as long as nothing was seen."""
        lost_at: float | None = None
        while True:
            began, chosen = time.monotonic(), {} if self._place else first
            try:
                for event in self._api.events(self._path, after=self._place, follow="true", **self._which, **chosen):
                    lost_at = None
                    if event.type == "end":
                        return
                    self._show(event)
            except CutOff as cut:
                reason = str(cut)
            else:
                reason = "the service ended the stream"
            now = time.monotonic()
            if lost_at is None or now - began > _WAS_UP_S:
                lost_at = now
                _note(f"cut off ({reason}); it goes on when the service answers again")
            if now - lost_at > PATIENCE_S:
                fail(f"{self._api.url} did not answer for {PATIENCE_S:.0f} s ({reason}).", UNREACHABLE)
            time.sleep(RECONNECT_S)

    def _show(self, event: ServerEvent) -> None:
        self._place = event.id or self._place
        if event.type == "notice":
            _note(event.data["detail"])
        if event.type != "log":
            return
        source = (event.data["pod"], event.data["container"])
        self._sources.add(source)
        prefix = f"[{source[0]}/{source[1]}] " if len(self._sources) > 1 else ""
        lines = event.data["lines"]
        stamped = [f"{line['at']} {line['text']}" if self._timestamps else line["text"] for line in lines]
        _print("".join(f"{prefix}{text}\n" for text in stamped))


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _note(sentence: str) -> None:
    typer.echo(f"# budcluster: {sentence}", err=True)
