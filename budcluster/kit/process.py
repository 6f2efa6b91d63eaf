"""Runs outside tools: argv only, streamed and masked output, time limits, and nothing left running behind us.

Each tool gets a session of its own. It is watched through a pidfd and reaped here (not by asyncio's child watcher), so
that its process group is killed while the dead leader still holds the group's number: no stranger can be hit.
If this process dies, even by SIGKILL, `process_guard` kills what it was running. A tool that must survive us is run by
`budcluster.kit.detached`.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from budcluster.kit.command import (
    Command,
    Completed,
    Interrupts,
    LineSink,
    Stream,
    ToolFailed,
    ToolMissing,
    ToolOutputTooLarge,
    ToolTimedOut,
)
from budcluster.kit.lines import LineSplitter, Tail
from budcluster.kit.process_guard import GUARD

_CHUNK: Final = 64 * 1024
_DRAIN_S: Final = 2.0
"""Seconds to read on after the tool's end, should somebody who left its session hold its output open."""


async def run(command: Command, *, on_line: LineSink | None = None) -> Completed:
    """Run a tool to its end. Every line goes masked to `on_line` as it comes.

    When cancelled or out of time the tool gets SIGINT, after `grace_s` its whole group gets SIGKILL, and only when it
    is gone does this return. Children that a tool leaves behind are killed at its end.
    Raises ToolMissing, ToolFailed, ToolTimedOut, ToolOutputTooLarge, and whatever `on_line` raises.
    """
    running = _Running.start(command, on_line)
    try:
        async with asyncio.timeout(command.timeout_s) as limit:
            await running.ended()
    except BaseException as error:
        # Whatever ends our waiting, the tool must not outlive this call.
        await undisturbed(running.stop(kindly=isinstance(error, TimeoutError | asyncio.CancelledError)))
        if isinstance(error, TimeoutError) and limit.expired():
            raise ToolTimedOut(command.tool, command.timeout_s, tail=running.tail.lines()) from None
        raise
    return running.completed()


class ProcessSlots:
    """How many tools may run at once: `async with slots: await run(…)`. First come, first served."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError("at least one tool must be able to run.")
        self._free = asyncio.Semaphore(limit)
        self.running = 0
        self.waiting = 0

    async def __aenter__(self) -> None:
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running -= 1
        self._free.release()


async def undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Finish this work even if the waiting task is cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


async def readable(descriptor: int) -> None:
    """Wait until there is something to read; for a pidfd that is the end of its process."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def spawn(command: Command, argv: list[str], *, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own. Raises ToolMissing when program or folder are not there."""
    source = input_file(command.stdin)
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if source is None else source,
            stdout=stdout,
            stderr=stderr,
            cwd=command.cwd,
            env=command.environment(),
            start_new_session=True,
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        missing = f"the folder {command.cwd}" if command.cwd and not command.cwd.is_dir() else f"{command.tool}"
        sentence = f"{missing} cannot be used on this machine ({error.strerror}); install it or correct the setting."
        raise ToolMissing(command.tool, sentence) from error
    finally:
        if source is not None:
            os.close(source)


def input_file(content: bytes | None) -> int | None:
    """The tool's standard input as an anonymous file in memory: it cannot block us and never touches a disk."""
    if content is None:
        return None
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class _Running:
    """One started process and the tasks that read its output."""

    def __init__(self, command: Command, process: subprocess.Popen[bytes], on_line: LineSink | None) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._command = command
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._began = time.monotonic()
        self._captured = bytearray()
        self._reaped = False
        self.tail = Tail()
        redactor = command.redactor()
        stdout = LineSplitter(Stream.STDOUT, redactor, self.tail, on_line)
        stderr = LineSplitter(Stream.STDERR, redactor, self.tail, on_line)
        self._pumps = {
            asyncio.create_task(self._pump(process.stdout.fileno(), stdout, captures=command.capture_bytes > 0)),
            asyncio.create_task(self._pump(process.stderr.fileno(), stderr, captures=False)),
        }
        self._exit = asyncio.create_task(readable(self._pidfd))

    @classmethod
    def start(cls, command: Command, on_line: LineSink | None) -> "_Running":
        process = spawn(command, list(command.argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        GUARD.watch(process.pid)
        return cls(command, process, on_line)

    async def ended(self) -> None:
        """Wait until the tool has ended and its output is read. Raises what the sink raised."""
        pending: set[asyncio.Task[None]] = {self._exit, *self._pumps}
        while not self._exit.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        await self._finish()
        for pump in self._pumps:
            if not pump.cancelled():
                pump.result()

    async def stop(self, *, kindly: bool) -> None:
        """End the tool, with time to put its things in order if `kindly`, and wait for it."""
        if kindly and not self._exit.done():
            if self._command.interrupts is Interrupts.GROUP:
                os.killpg(self._process.pid, signal.SIGINT)
            else:
                signal.pidfd_send_signal(self._pidfd, signal.SIGINT)
            await asyncio.wait({self._exit}, timeout=self._command.grace_s)
        if not self._exit.done():
            os.killpg(self._process.pid, signal.SIGKILL)
            await asyncio.wait({self._exit})
        await self._finish()

    def completed(self) -> Completed:
        """The result. Raises ToolFailed when the exit code is not among the good ones."""
        exit_code = self._process.returncode
        if exit_code not in self._command.ok:
            raise ToolFailed(self._command.tool, exit_code, tail=self.tail.lines())
        seconds = time.monotonic() - self._began
        return Completed(exit_code, seconds, self.tail.lines(), bytes(self._captured))

    async def _finish(self) -> None:
        if not self._reaped:
            # The leader is dead but not reaped: its number still names this group and no other.
            os.killpg(self._process.pid, signal.SIGKILL)
            GUARD.release(self._process.pid)
            self._process.wait()
            os.close(self._pidfd)
            self._reaped = True
        await asyncio.wait(self._pumps, timeout=_DRAIN_S)
        for pump in self._pumps:
            pump.cancel()
        await asyncio.wait(self._pumps)
        for pump in self._pumps:
            if not pump.cancelled():
                pump.exception()  # looked at, so that asyncio does not report it; `ended` raises it
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    async def _pump(self, descriptor: int, lines: LineSplitter, *, captures: bool) -> None:
        os.set_blocking(descriptor, False)
        try:
            while True:
                await readable(descriptor)
                with suppress(BlockingIOError):
                    data = os.read(descriptor, _CHUNK)
                    if not data:
                        break
                    if captures:
                        self._capture(data)
                    lines.feed(data)
        finally:
            lines.close()

    def _capture(self, data: bytes) -> None:
        if len(self._captured) + len(data) > self._command.capture_bytes:
            most = f"{self._command.capture_bytes} bytes"
            sentence = f"{self._command.tool} wrote more than {most} to standard output and was stopped."
            raise ToolOutputTooLarge(self._command.tool, sentence)
        self._captured += data
