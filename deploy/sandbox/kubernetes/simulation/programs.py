"""What runs inside a container: a program as a function of the seconds since it was started.

A program is made once per container start. Its log, its exit and its answers all follow from the time that has passed,
so nothing has to tick while thousands of them "run".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.kubernetes.simulation.machines import Device, Machine
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One log line, `at` seconds after the start."""

    at: float
    text: str


@dataclass(frozen=True)
class Exit:
    """The end of a program: seconds after the start, exit code, and the kubelet's word for it."""

    at: float
    code: int
    reason: str = ""

    @property
    def word(self) -> str:
        """`Completed`, `Error`, or what was given (`OOMKilled`)."""
        return self.reason or ("Completed" if self.code == 0 else "Error")


@dataclass(frozen=True)
class Request:
    """An HTTP request to a container. `local` says that it comes from inside the pod."""

    method: str
    path: str
    port: int
    query: str = ""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    local: bool = False


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; `delay` is what the program takes to give it (virtual seconds)."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    delay: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """What a container takes from its node."""

    cpu_milli: int
    memory_bytes: int


@dataclass(frozen=True)
class Launch:
    """Everything a program can know of its surroundings when it starts."""

    world: World
    pod: Obj
    container: Obj
    machine: Machine
    devices: list[Device]
    env: Mapping[str, str]
    restarts: int = 0

    @property
    def image(self) -> str:
        """The image reference as written in the pod."""
        return str(self.container["image"])

    @property
    def command(self) -> list[str]:
        """Command and arguments, with `$(NAME)` replaced as kubelet does."""
        words = [*(self.container.get("command") or []), *(self.container.get("args") or [])]
        return [re.sub(r"\$\((\w+)\)", lambda name: self.env.get(name[1], name[0]), word) for word in words]


class Program:
    """The quiet program: says one line, runs until stopped, answers every declared port with 200."""

    lines: Sequence[Line] = ()
    exit: Exit | None = None
    settled: float = 0.0
    """Seconds after which its answers change no more by themselves."""

    def is_settled(self, at: float) -> bool:
        """Whether its answers change no more by themselves."""
        return at >= self.settled

    def is_healthy(self, at: float) -> bool:  # noqa: ARG002 -- for subclasses
        """What a command run as a probe inside the container finds."""
        return True

    def reply(self, request: Request, at: float) -> Reply | None:  # noqa: ARG002 -- for subclasses
        """Answer a request at that age; None when nothing listens there (connection refused)."""
        return Reply(body=b"ok\n")

    def usage(self, at: float) -> Usage:  # noqa: ARG002 -- for subclasses
        """CPU and memory at that age."""
        return Usage(5, 24 << 20)

    def later_lines(self, since: float, until: float) -> list[Line]:  # noqa: ARG002 -- for subclasses
        """Lines that recur while it runs, in the half-open span of ages."""
        return []


class Gate(Program):
    """A program that is healthy once a condition of its machine holds and some seconds have passed."""

    def __init__(self, holds: Callable[[], bool], *, takes: float, lines: Sequence[Line] = ()) -> None:
        self._holds = holds
        self._takes = takes
        self.lines = lines

    def is_settled(self, at: float) -> bool:
        """Not before it is healthy."""
        return self.is_healthy(at)

    def is_healthy(self, at: float) -> bool:
        """See the class."""
        return at >= self._takes and self._holds()

    def reply(self, request: Request, at: float) -> Reply | None:
        """503 until healthy."""
        return super().reply(request, at) if self.is_healthy(at) else Reply(503, b"not ready\n")


class Crash(Program):
    """Says some lines and ends with an error."""

    def __init__(self, *lines: str, code: int = 1, at: float = 1.0) -> None:
        self.lines = tuple(Line(at * 0.9, text) for text in lines)
        self.exit = Exit(at, code)


class Script(Program):
    """A shell-like one-liner: `sleep N`, `exit N`, `echo …` are understood, everything else is quick and succeeds."""

    def __init__(self, text: str, *, ends: bool) -> None:
        moment, lines, code = 0.0, [], 0
        for part in re.split(r"&&|;|\n", text):
            words = part.split()
            if words[:1] == ["echo"]:
                lines.append(Line(moment, part.strip()[5:].strip("\"'")))
            elif words[:1] == ["sleep"] and len(words) > 1:
                moment += _seconds(words[1])
            elif words[:1] == ["false"]:
                code = 1
            elif words[:1] == ["exit"] and len(words) > 1 and words[1].isdigit():
                code = int(words[1])
                ends = True
                break
        self.lines = tuple(lines)
        endless = "infinity" in text or "tail -f" in text
        self.exit = Exit(moment + 0.5, code) if (ends or code) and not endless else None


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip("\"'"))
    if match is None:
        return 0.0
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


Maker = Callable[[Launch], Program | None]


class ProgramCatalogue:
    """Which program an image stands for. Makers are asked in order; the first that knows the container wins."""

    def __init__(self, makers: Sequence[Maker]) -> None:
        self._makers = tuple(makers)

    def start(self, launch: Launch, *, ends: bool) -> Program:
        """The program for one start; `ends` tells that the container is expected to finish (Job, init container)."""
        for make in self._makers:
            program = make(launch)
            if program is not None:
                return program
        return Script(_script(launch.command), ends=ends)


def _script(command: Sequence[str]) -> str:
    words = list(command)
    if len(words) >= 3 and words[0].rsplit("/", 1)[-1] in ("sh", "bash", "ash") and words[1].startswith("-"):
        return words[2]
    return " ".join(words)
