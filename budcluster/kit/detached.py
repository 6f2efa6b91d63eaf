"""Tools that go on when this service dies, and are found again when it is back.

Terraform killed in the middle loses track of what it has made; its output must therefore go to a file, not to a pipe
that breaks with us. `start` runs it under a keeper (`process_keeper`), `adopt` finds it again: the same process is
proven by its number, its start time and the boot of the machine.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from budcluster.kit import process_keeper
from budcluster.kit.command import (
    Command,
    Completed,
    Interrupts,
    LineSink,
    Stream,
    ToolFailed,
    ToolMissing,
    ToolTimedOut,
    ToolVanished,
)
from budcluster.kit.lines import LineSplitter, Tail
from budcluster.kit.process import readable, spawn, undisturbed

_POLL_S: Final = 0.1
_KEEPER_S: Final = 5.0
"""Seconds that a keeper may take to write down the end of its tool."""
_CHUNK: Final = 64 * 1024
_INTERRUPTED: Final = "interrupted"
"""Marks that SIGINT was sent: Terraform takes a second one as the order to give up without saving its state."""


class NothingToAdopt(Exception):
    """No tool was ever started in this folder."""


class AlreadyStarted(Exception):
    """A tool was started in this folder before. Adopt it, or take another folder."""


async def start(command: Command, folder: Path) -> "DetachedTool":
    """Start a tool that outlives this process. Its traces go to `folder`, which is made with mode 0700.

    The output file is not masked (the tool itself writes it); lines are masked when read. The owner of the folder
    removes it. Raises ToolMissing, AlreadyStarted.
    """
    folder = _fresh(folder)
    keeper = [sys.executable, "-I", "-S", process_keeper.__file__, str(folder), *command.argv]
    launcher = spawn(command, keeper, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await undisturbed(_reap(launcher))
    if launcher.returncode != 0:
        ended = _read(folder / process_keeper.EXIT) or {}
        reason = os.strerror(ended["errno"]) if ended.get("errno") else "it could not be started"
        raise ToolMissing(command.tool, f"{command.tool} cannot be used on this machine ({reason}).")
    return adopt(command, folder)


def adopt(command: Command, folder: Path) -> "DetachedTool":
    """The tool that was started in this folder, running or ended. `command` gives good exits, secrets and limits.

    Raises NothingToAdopt.
    """
    record = _read(folder.resolve() / process_keeper.PROCESS)
    if record is None:
        raise NothingToAdopt(f"no tool was started in {folder}.")
    return DetachedTool(command, folder.resolve(), record)


class DetachedTool:
    """One started tool. Several may look at the same one, also from several processes."""

    def __init__(self, command: Command, folder: Path, record: dict[str, Any]) -> None:
        self._command = command
        self._folder = folder
        self._record = record
        self.pid: int = record["pid"]

    @property
    def is_running(self) -> bool:
        """Whether this very process still runs; another one with the same number does not count."""
        return self._lives("pid", "start")

    async def follow(self, *, on_line: LineSink | None = None, offset: int = 0) -> Completed:
        """Hand on its lines from this offset (see Line.offset) until it ends.

        Cancelling stops the following and leaves the tool alone: a service that shuts down must not interrupt it. To
        end it, call `stop`. `timeout_s` counts from the start of the tool, restarts of this service included.
        Raises ToolFailed, ToolTimedOut (after stopping it), ToolVanished, and whatever `on_line` raises.
        """
        tail = Tail()
        spent = time.time() - self._record["began"]
        left = min(max(self._command.timeout_s - spent, 0.0), self._command.timeout_s)
        try:
            async with asyncio.timeout(left) as limit:
                await self._read_on(LineSplitter(Stream.STDOUT, self._command.redactor(), tail, on_line, offset=offset))
                exit_code, ended = await self._exit(tail)
        except TimeoutError:
            if not limit.expired():
                raise
            await self.stop()
            raise ToolTimedOut(self._command.tool, self._command.timeout_s, tail=tail.lines()) from None
        if exit_code not in self._command.ok:
            raise ToolFailed(self._command.tool, exit_code, tail=tail.lines())
        return Completed(exit_code, ended - self._record["began"], tail.lines())

    async def stop(self) -> None:
        """Interrupt it once, after `grace_s` kill its group, and return when it is gone. Safe to repeat.

        A stop that was begun before, by whomever, is continued: the interrupt is not sent twice.
        """
        await undisturbed(self._stop())

    async def _stop(self) -> None:
        with self._opened() as pidfd:
            if pidfd is None:
                return
            gone = asyncio.create_task(readable(pidfd))
            await asyncio.wait({gone}, timeout=self._interrupt(pidfd))
            if not gone.done():
                os.killpg(self.pid, signal.SIGKILL)
                await gone
        with contextlib.suppress(ToolVanished):
            await self._exit(Tail())

    def _interrupt(self, pidfd: int) -> float:
        """Send SIGINT unless that was done before; the seconds that are left of the grace."""
        marker = self._folder / _INTERRUPTED
        try:
            # Before the signal: dying in between costs the grace, the other order could interrupt twice.
            marker.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            spent = time.time() - marker.stat().st_mtime
            return min(max(self._command.grace_s - spent, 0.0), self._command.grace_s)
        if self._command.interrupts is Interrupts.GROUP:
            os.killpg(self.pid, signal.SIGINT)
        else:
            signal.pidfd_send_signal(pidfd, signal.SIGINT)
        return self._command.grace_s

    async def _read_on(self, lines: LineSplitter) -> None:
        with self._opened() as pidfd, (self._folder / process_keeper.OUTPUT).open("rb") as file:
            file.seek(lines.offset)
            gone = None if pidfd is None else asyncio.create_task(readable(pidfd))
            try:
                while True:
                    last = gone is None or gone.done()
                    while data := file.read(_CHUNK):
                        lines.feed(data)
                        await asyncio.sleep(0)
                    if last:
                        break
                    assert gone is not None
                    await asyncio.wait({gone}, timeout=_POLL_S)
                lines.close()
            finally:
                if gone is not None:
                    gone.cancel()
                    await asyncio.wait({gone})

    async def _exit(self, tail: Tail) -> tuple[int, float]:
        deadline = time.monotonic() + _KEEPER_S
        while True:
            keeper_lives = self._lives("keeper_pid", "keeper_start")
            if ended := _read(self._folder / process_keeper.EXIT):
                return ended["exit_code"], ended["ended"]
            if not keeper_lives or time.monotonic() > deadline:
                sentence = f"{self._command.tool} ended, but nobody saw how; look at what it has done and run it again."
                raise ToolVanished(self._command.tool, sentence, tail=tail.lines())
            await asyncio.sleep(_POLL_S / 5)

    def _lives(self, pid: str, start: str) -> bool:
        if self._record["boot"] != process_keeper.boot_id():
            return False
        return self._record[start] is not None and process_keeper.start_time(self._record[pid]) == self._record[start]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int | None]:
        """A pidfd of the tool, None when it has ended."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            # Asked after the descriptor was taken: from here on it cannot come to mean another process.
            yield pidfd if self.is_running else None
        finally:
            os.close(pidfd)


def _fresh(folder: Path) -> Path:
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / process_keeper.PROCESS).exists():
        raise AlreadyStarted(f"a tool was already started in {folder}.")
    return folder


async def _reap(process: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(process.pid)
    try:
        await readable(pidfd)
    finally:
        os.close(pidfd)
        process.wait()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return content
