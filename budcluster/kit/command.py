"""A command line as data, what it left behind, and the facts that can go wrong with it."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from budcluster.kit.redaction import Redactor, names_a_secret

_INHERITED: Final = re.compile(r"PATH|HOME|LANG|TMPDIR|SSL_[A-Z_]+|[A-Za-z]+_(?:proxy|PROXY)")
"""What a tool gets from this process: enough to find programs, write scratch files and reach the network."""
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHORTEST_SECRET: Final = 6
_TAIL_LINES: Final = 20


class Interrupts(StrEnum):
    """Who gets SIGINT when a command is to stop politely. SIGKILL always goes to the whole group."""

    PROCESS = "process"
    """The tool itself, which then ends its children in order. A second signal makes Terraform give up its state."""
    GROUP = "group"
    """The tool and its children, as a terminal does."""


class Stream(StrEnum):
    """Where a line came from. A detached tool writes both into one file, which is read as STDOUT."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of output, masked, without its end and without NUL characters (PostgreSQL stores none)."""

    stream: Stream
    text: str
    offset: int
    """Bytes of the stream up to the end of this line. Following a detached tool resumes from here."""


LineSink = Callable[[Line], None]
"""Takes each line as it comes. Must return at once; what it raises ends the run."""


class SecretOnCommandLine(ValueError):
    """A declared secret stands among the arguments, where every user of the machine could read it."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to run. `repr` shows the program and its arguments, never environment, input or secrets."""

    argv: tuple[str, ...]
    """Program and arguments. No shell reads them."""
    ok: frozenset[int] = frozenset({0})
    """Exit codes that mean success: `terraform plan -detailed-exitcode` says 2 for "there are changes"."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to the few variables that a tool inherits. Values under names such as HF_TOKEN are masked in the output."""
    cwd: Path | None = None
    stdin: bytes | None = field(default=None, repr=False)
    """Given to the tool as a file in memory. None is /dev/null."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values masked in each line. May not occur in `argv`."""
    timeout_s: float = 600.0
    grace_s: float = 10.0
    """Seconds between SIGINT and SIGKILL. Terraform needs minutes: it ends the call in flight and saves its state."""
    interrupts: Interrupts = Interrupts.PROCESS
    capture_bytes: int = 16 * 1024 * 1024
    """Most bytes of standard output to keep in Completed.stdout; more ends the run. 0 keeps none and never ends it."""

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0] or any("\0" in argument for argument in self.argv):
            raise ValueError("a command needs a program, and arguments without NUL characters.")
        if self.timeout_s <= 0 or self.grace_s < 0 or self.capture_bytes < 0:
            raise ValueError("a command's limits are positive.")
        for name, value in self.env.items():
            if not _ENV_NAME.fullmatch(name) or "\0" in value:
                raise ValueError(f"{name!r} cannot be an environment variable, or its value holds a NUL character.")
        for secret in self.secrets:
            if len(secret) >= _SHORTEST_SECRET and any(secret in argument for argument in self.argv):
                raise SecretOnCommandLine(f"an argument of {self.tool} holds a secret; use its environment or input.")

    @property
    def tool(self) -> str:
        """The program's name, for people."""
        return Path(self.argv[0]).name

    def environment(self) -> dict[str, str]:
        """All that the tool gets to see: an allowlist of this process's variables, and `env`."""
        inherited = {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}
        return {**inherited, **self.env}

    def redactor(self) -> Redactor:
        """Masks the declared secrets and the environment's values under secret names."""
        return Redactor([*self.secrets, *(value for name, value in self.env.items() if names_a_secret(name))])


@dataclass(frozen=True, slots=True)
class Completed:
    """A tool that ended well."""

    exit_code: int
    seconds: float
    tail: tuple[str, ...]
    """The last lines, masked."""
    stdout: bytes = field(default=b"", repr=False)
    """Standard output as it came. Not masked: it is for parsing, not for logs. Empty for detached tools."""


class ToolError(Exception):
    """A tool did not do its work. Says which tool and its last masked lines; never arguments or environment."""

    def __init__(self, tool: str, sentence: str, *, tail: Iterable[str] = ()) -> None:
        super().__init__(sentence)
        self.tool = tool
        self.sentence = sentence
        self.tail = tuple(tail)

    def __str__(self) -> str:
        return "\n".join((self.sentence, *self.tail[-_TAIL_LINES:]))


class ToolMissing(ToolError):
    """The program, or the folder to run it in, is not on this machine."""


class ToolFailed(ToolError):
    """The tool ended with an exit code that means failure; a negative one is the signal that ended it."""

    def __init__(self, tool: str, exit_code: int, *, tail: Iterable[str] = ()) -> None:
        how = f"exit code {exit_code}" if exit_code >= 0 else f"signal {-exit_code}"
        super().__init__(tool, f"{tool} ended with {how}.", tail=tail)
        self.exit_code = exit_code


class ToolTimedOut(ToolError):
    """The tool ran longer than it may, and was stopped."""

    def __init__(self, tool: str, timeout_s: float, *, tail: Iterable[str] = ()) -> None:
        super().__init__(tool, f"{tool} did not end within {timeout_s:g} s and was stopped.", tail=tail)
        self.timeout_s = timeout_s


class ToolOutputTooLarge(ToolError):
    """The tool wrote more standard output than the caller is ready to keep, and was stopped."""


class ToolVanished(ToolError):
    """A detached tool ended while nobody could see its exit code: its keeper was killed, or the machine restarted."""
