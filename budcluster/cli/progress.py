"""Live progress of an operation: bars on a terminal, lines elsewhere, JSON events for programs."""

import json
import time
from typing import Any, Final

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn
from rich.table import Column

from budcluster.cli.client import INTERRUPTED, RECONNECT_S, Api, CutOff, fail
from budcluster.cli.output import ahead, out, print_json

FINAL: Final = {"SUCCEEDED", "FAILED", "CANCELLED"}
_ESTIMATE_EVERY_S: Final = 2.0
_SAY_EVERY_S: Final = 30.0
"""Between two lines that only say how far a step is."""
_ORDER: Final = {"PENDING": 0, "RUNNING": 1, "SUCCEEDED": 2, "SKIPPED": 2, "FAILED": 2, "CANCELLED": 2}


def follow(api: Api, operation_id: str, *, as_json: bool = False) -> None:
    """Show an operation until it ends. Ends the program with 1 when it failed or was cancelled."""
    shown = _Events() if as_json else _Bars() if out.is_terminal else _Lines()
    try:
        with shown:
            operation = _follow(api, operation_id, shown)
    except (KeyboardInterrupt, BrokenPipeError):
        commands = "`budcluster operations watch {0}` shows it, `budcluster operations cancel {0}` ends it"
        fail(f"nobody watches any more, but the work goes on; {commands.format(operation_id)}.", INTERRUPTED)
    if operation["status"] != "SUCCEEDED":
        fail(_end_of(operation), 1)


def follow_or_tell(api: Api, answer: dict[str, Any], *, watch: bool, json: bool) -> None:
    """After a request for long work: its warnings, and then its progress or, without `watch`, where that is found."""
    operation_id = answer["operation_id"]
    for warning in answer.get("warnings", ()):
        typer.echo(f"Note: {warning}", err=True)
    if watch:
        follow(api, operation_id, as_json=json)
    elif json:
        print_json(answer)
    else:
        typer.echo(f"It was begun; `budcluster operations watch {operation_id}` shows the progress.")


def not_undone(operation: dict[str, Any]) -> list[str]:
    """Titles of the steps that were to be taken back and could not be."""
    left = (operation["result"] or {}).get("left", ())
    return [step["title"] for step in operation["steps"] if step["name"] in left]


def _end_of(operation: dict[str, Any]) -> str:
    error, left = operation["error"] or {}, not_undone(operation)
    if operation["status"] == "CANCELLED":
        said = [f"{operation['kind']} was cancelled.", f"Not undone: {', '.join(left)}." if left else None]
    else:
        said = [f"{operation['kind']} ended FAILED: {error.get('detail', 'no cause was recorded.')}"]
        said += [error.get("next_step"), f"(operation {operation['id']})"]
    return " ".join(part for part in said if part)


def _follow(api: Api, operation_id: str, shown: "_Lines") -> dict[str, Any]:
    last: str | None = None
    while True:
        operation: dict[str, Any] = api.get(f"/operations/{operation_id}")
        shown.operation(operation)
        if operation["status"] in FINAL:
            return operation
        estimated = time.monotonic()
        try:
            for event in api.events(f"/operations/{operation_id}/events", after=last):
                last = event.id or last
                shown.event(event.type, event.data)
                if event.type == "step" and time.monotonic() - estimated >= _ESTIMATE_EVERY_S:
                    estimated = time.monotonic()
                    shown.estimate(api.get(f"/operations/{operation_id}")["eta"])
                if event.type == "operation" and event.data["status"] in FINAL:
                    break
            else:
                time.sleep(RECONNECT_S)  # the server ended the stream early: ask again
        except CutOff:
            api.await_answer()


class _Lines:
    """One line for each change: for logs and pipes."""

    def __enter__(self) -> "_Lines":
        self._seen: dict[str, str] = {}
        self._said_at = 0.0
        self._left: str | None = None
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def operation(self, operation: dict[str, Any]) -> None:
        self.estimate(operation["eta"])
        for step in operation["steps"]:
            self._step(step)

    def event(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "step":
            self._step(data)

    def estimate(self, eta: str | None) -> None:
        """When it will probably have ended, where anybody knows."""
        self._left = f"{ahead(eta)} left" if eta else None

    def _step(self, step: dict[str, Any]) -> None:
        before = self._seen.get(step["name"], "PENDING")
        # A stream repeats what was there when it began: only what goes forward is news.
        is_news = _ORDER[step["status"]] > _ORDER[before]
        is_long = step["status"] == before == "RUNNING" and time.monotonic() - self._said_at >= _SAY_EVERY_S
        if is_news or is_long:
            self._seen[step["name"]], self._said_at = step["status"], time.monotonic()
            detail = f": {step['detail']}" if step.get("detail") else ""
            left = f" ({self._left})" if self._left and step["status"] == "RUNNING" else ""
            typer.echo(f"{step['status']:<9} {step['title']}{detail}{left}")


class _Events(_Lines):
    """Every event as one line of JSON."""

    def operation(self, operation: dict[str, Any]) -> None:
        typer.echo(json.dumps({"type": "operation", "data": operation}))

    def event(self, kind: str, data: dict[str, Any]) -> None:
        typer.echo(json.dumps({"type": kind, "data": data}))


class _Bars(_Lines):
    """A bar for each step."""

    def __enter__(self) -> "_Bars":
        super().__enter__()
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4)),
            # On a narrow screen this one gives way.
            TextColumn("[dim]{task.fields[detail]}[/dim]", table_column=Column(no_wrap=True, ratio=1)),
            console=out,
            expand=True,
        )
        self._bars: dict[str, TaskID] = {}
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _step(self, step: dict[str, Any]) -> None:
        status = step["status"]
        description = escape(step["title"])
        if status in {"FAILED", "CANCELLED"}:
            description = f"[red]{description} ({status.lower()})[/red]"
        elif status == "SKIPPED":
            description = f"[dim]{description} (skipped)[/dim]"
        if step["name"] not in self._bars:
            self._bars[step["name"]] = self._progress.add_task(description, total=100, detail="")
        done = 100 if status in {"SUCCEEDED", "SKIPPED"} else step["percent"]
        told = (step.get("detail"), self._left if status == "RUNNING" else None)
        detail = escape(" · ".join(part for part in told if part))
        self._progress.update(self._bars[step["name"]], description=description, completed=done, detail=detail)
