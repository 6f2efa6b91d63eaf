"""Kills the tools of a service that died without a chance to do so itself.

One small process waits at the end of a pipe whose other end only the service holds. It is told which process groups
run; when the pipe closes it kills those that are left. Chosen over PR_SET_PDEATHSIG, which would need Python code
between fork and exec (unsafe beside threads), fires when the starting *thread* ends, and misses grandchildren. What
remains open is the instant between starting a tool and naming it here.

Only the standard library may be imported: the guard runs this file alone, without the service's packages.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path


class ProcessGuard:
    """The service's side. Safe to use from several threads; starts the guard when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def watch(self, group: int) -> None:
        """Have this process group killed should the service die."""
        with self._lock:
            self._groups.add(group)
            self._tell(f"+{group}\n")

    def release(self, group: int) -> None:
        """The group has ended."""
        with self._lock:
            self._groups.discard(group)
            self._tell(f"-{group}\n")

    def close(self) -> None:
        """End the guard, and with it every group that is still named."""
        with self._lock:
            if self._process is not None and self._owner == os.getpid():
                self._drop()

    def _tell(self, message: str) -> None:
        if self._process is None or self._owner != os.getpid():
            self._start()
            return
        try:
            os.write(self._pipe(), message.encode())
        except BrokenPipeError:
            # Somebody killed the guard. Another one learns all that runs.
            self._drop()
            self._start()

    def _start(self) -> None:
        if self._owner != os.getpid():
            atexit.register(self.close)
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            bufsize=0,
            start_new_session=True,
        )
        for group in sorted(self._groups):
            os.write(self._pipe(), f"+{group}\n".encode())

    def _drop(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._process = None

    def _pipe(self) -> int:
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin.fileno()


GUARD = ProcessGuard()
"""This process's guard."""


def main() -> None:
    """The guard's side: read until the service is gone, then kill what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
