"""Child processes of the stack: started in sessions of their own, so that Ctrl-C reaches the supervisor alone."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final

from devstack.instance import CannotStart

_TERMINATE_TIMEOUT_S: Final = 45.0
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


class Child:
    """One process; its output goes to a file, or through a filter to our own standard error."""

    def __init__(self, name: str, argv: list[str], *, env: Mapping[str, str], log_file: Path, echo: bool) -> None:
        self.name = name
        self.log_file = log_file
        output: int | IO[bytes]
        with log_file.open("ab") as log:
            self._began_at = log.tell()
            output = subprocess.PIPE if echo else log
            # A supervisor that is killed must not leave its children behind.
            self.process = subprocess.Popen(
                argv,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the supervisor starts children before any thread
            )
        if echo:
            threading.Thread(target=self._copy, name=f"{name}-output", daemon=True).start()

    def _copy(self) -> None:
        assert self.process.stdout is not None
        with self.log_file.open("ab", buffering=0) as log:
            for line in self.process.stdout:
                log.write(line)
                with contextlib.suppress(OSError):
                    sys.stderr.buffer.write(line)
                    sys.stderr.buffer.flush()

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float, stopping: threading.Event) -> None:
        """Wait for `ready`. Raises CannotStart with the end of the output when it dies or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.process.poll() is not None:
                raise CannotStart(f"{self.name} ended with exit code {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() >= deadline:
                raise CannotStart(f"{self.name} was not ready after {timeout_s:.0f} s:\n{self.tail()}")
            if stopping.wait(0.1):
                raise KeyboardInterrupt

    def tail(self) -> str:
        """The last lines of its output, without those of earlier runs."""
        with contextlib.suppress(OSError), self.log_file.open(errors="replace") as log:
            log.seek(self._began_at)
            return "\n".join(f"    {line}" for line in log.read().splitlines()[-12:])
        return "    (no output)"

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to its group when that is not enough."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_TERMINATE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
