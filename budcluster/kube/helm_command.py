"""Runs Helm's command lines as argument lists.

pyhelm3's own way goes through a shell and logs what it runs, so this goes through `kit.process` instead.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from pyhelm3.command import Command as Pyhelm

from budcluster.kit.command import Command, Line, LineSink, Stream
from budcluster.kit.process import run

OWNER_LABEL: Final = "budcluster.io/managed"
"""On the record of every release that this service makes, from the moment it is begun: releases without it belong to
others. A revision's description would not do: Helm writes its own into one that is pending or has failed."""
_GRACE_S: Final = 30.0
_HISTORY: Final = 10
_TELLING: Final = frozenset({"upgrade", "rollback", "uninstall"})
"""Commands whose complaints a person wants to read; questions are asked by the way."""
DEBUG: Final = "level=DEBUG"
"""How lines begin that Helm writes for its developers."""
_SECRET_NAME: Final = re.compile(r"password|token$|secret(?!env|name|s$)|apikey|api_key", re.IGNORECASE)


class HelmCommand(Pyhelm):  # type: ignore[misc] # pyhelm3 ships no types
    """pyhelm3's command lines, run as argument lists."""

    def __init__(
        self,
        *,
        executable: str,
        kubeconfig: str,
        environment: dict[str, str],
        timeout_s: float,
        on_line: LineSink | None,
        secrets: tuple[str, ...],
        extra: Sequence[str] = (),
    ) -> None:
        """`on_line` is told what Helm complains of; `extra` are flags that pyhelm3 does not know."""
        super().__init__(executable=executable, history_max_revisions=_HISTORY)
        self._path = kubeconfig
        self._environment = environment
        self._timeout_s = timeout_s
        self._on_line = _complaints_to(on_line) if on_line else None
        self._secrets = secrets
        self._extra = tuple(extra)

    async def run(self, command: Sequence[object], input: bytes | None = None) -> bytes:  # noqa: A002 - pyhelm3's name
        """Run one Helm command; its standard output. Raises the tool errors of `kit.command`."""
        # An uninstall that fails says why only to developers.
        more = {"upgrade": ("--labels", f"{OWNER_LABEL}=true"), "uninstall": ("--debug",)}.get(str(command[0]), ())
        argv = (self._executable, *(str(part) for part in command), *more, *self._extra, "--kubeconfig", self._path)
        done = await run(
            Command(
                argv=argv, stdin=input, env=self._environment, timeout_s=self._timeout_s, grace_s=_GRACE_S,
                secrets=(*self._secrets, *secrets_in(input)),
            ),
            on_line=self._on_line if command[0] in _TELLING else None,
        )  # fmt: skip
        return done.stdout

    async def labels(self, name: str, namespace: str) -> Mapping[str, str]:
        """What the newest revision's record is labelled with; pyhelm3 has no such question."""
        answer = await self.run(["get", "metadata", name, "--namespace", namespace, "--output", "json"])
        return json.loads(answer).get("labels") or {}


def _complaints_to(sink: LineSink) -> LineSink:
    def take(line: Line) -> None:
        if line.stream is Stream.STDERR and not line.text.startswith(DEBUG):
            sink(line)

    return take


def secrets_in(values: bytes | None) -> list[str]:
    """Values under names such as `token` or `password`, to be masked in what Helm prints."""
    found: list[str] = []

    def walk(value: object, *, secret: bool) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, secret=secret or bool(_SECRET_NAME.search(str(key))))
        elif isinstance(value, list):
            for inner in value:
                walk(inner, secret=secret)
        elif isinstance(value, str) and secret and len(value) >= 8:
            found.append(value)

    walk(json.loads(values) if values else None, secret=False)
    return found
