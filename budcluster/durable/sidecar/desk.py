"""What one process has in its hands: leases by token, connected workers, background work, and what happened so far.

Shared by the parts that run turns, run activities and look for work. Everything runs on one event loop.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from budcluster.durable.sidecar.instances import Turn
from budcluster.durable.sidecar.limits import Limits
from budcluster.durable.sidecar.rows import Lease, TaskLease
from budcluster.durable.sidecar.store import Store
from budcluster.durable.sidecar.streams import Histories, Stream, Streams
from budcluster.durable.sidecar.watch import Watch

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


@dataclass(slots=True)
class Counters:
    """What happened since the start; for metrics."""

    turns_committed: int = 0
    turns_lost: int = 0
    tasks_finished: int = 0
    tasks_failed_by_limit: int = 0
    results_unknown: int = 0
    deliveries_given_up: int = 0
    streams_opened: int = 0


@dataclass(eq=False, slots=True)
class RunningTurn:
    """A turn in a worker's hands."""

    lease: Lease
    turn: Turn
    stream: Stream
    is_confirmed: "asyncio.Future[bool] | None" = None
    """Set for a turn that went to the worker before its lease was written: whether it then was."""
    started: asyncio.Event | None = None
    """Set when the turn is on disk; somebody waits for the start to be so."""
    is_dirty: bool = False
    """A message came for this instance meanwhile: look again when the turn is over."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """An activity in a worker's hands."""

    lease: TaskLease
    stream: Stream


@dataclass(eq=False)
class Desk:
    """One process's share of the work."""

    store: Store
    limits: Limits
    owner: Callable[[], int | None]
    """This process's id, while it is registered."""
    watch: Watch
    streams: Streams = field(default_factory=Streams)
    histories: Histories = field(default_factory=Histories)
    counters: Counters = field(default_factory=Counters)
    turns: dict[str, RunningTurn] = field(default_factory=dict)
    by_instance: dict[str, RunningTurn] = field(default_factory=dict)
    """Turns until they are committed; `turns` has them until their answer."""
    tasks: dict[str, RunningTask] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)
    """Tokens this process made and has not given back: also those of statements on their way."""
    background: "set[asyncio.Task[None]]" = field(default_factory=set)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    looks_for_tasks: bool = True
    next_due: float = 0.0
    """When the next timer is due, on the loop's clock."""
    is_draining: bool = False
    has_peers: bool = False

    # -- tokens -------------------------------------------------------------------------------------------------

    def takes_work(self) -> bool:
        """Whether leases make sense now."""
        return self.owner() is not None and len(self.streams) > 0 and not self.is_draining

    def claim(self, count: int) -> list[str]:
        """Make tokens. Before anything with a token is written, the token is claimed."""
        tokens = [uuid.uuid4().hex for _ in range(count)]
        self.claimed.update(tokens)
        return tokens

    def unclaim(self, tokens: Iterable[str | None]) -> None:
        """These are not in use (any more)."""
        self.claimed.difference_update(token for token in tokens if token is not None)

    async def claiming(self, tokens: Iterable[str | None], statement: Awaitable[Result]) -> Result:
        """Await a statement that uses claimed tokens; the claim ends with a statement that failed."""
        try:
            return await statement
        except BaseException:
            self.unclaim(tokens)
            raise

    def turn_token(self) -> str | None:
        """A token for a turn to be leased on the way, where this process can run it."""
        if not self.takes_work():
            return None
        if len(self.turns) >= self.limits.turns_in_flight:
            self.wake.set()
            return None
        return self.claim(1)[0]

    def task_tokens(self, count: int) -> list[str | None]:
        """Tokens for as many of these activities as this process has room for."""
        room = 0
        if self.takes_work():
            room = max(0, min(count, self.limits.activities_in_flight - len(self.tasks)))
        return [*self.claim(room), *[None] * (count - room)]

    # -- giving up ----------------------------------------------------------------------------------------------

    def forget(self, token: str) -> None:
        """The work with this token is not in this process's hands any more."""
        if (turn := self.turns.pop(token, None)) is not None:
            instance_id = turn.lease.instance.instance_id
            if self.by_instance.get(instance_id) is turn:
                del self.by_instance[instance_id]
            turn.stream.forget(instance_id)
            turn.stream.tokens.discard(token)
        self.tasks.pop(token, None)

    def forget_everything(self) -> None:
        """The others gave this process up: nothing it holds is its own any more."""
        for token in [*self.turns, *self.tasks]:
            self.forget(token)
        self.claimed.clear()
        for stream in self.streams:
            stream.tokens.clear()
        self.distrust()

    def distrust(self) -> None:
        """PostgreSQL may have crashed and lost the last writes: send and read whole histories again."""
        self.histories = Histories()
        for stream in self.streams:
            stream.warm.clear()

    async def give_back(self, tokens: list[str], *, uncounted: bool = False) -> None:
        """Let anybody take this work, now; `uncounted` when nobody has tried it."""
        owner = self.owner()
        if owner is not None:
            free = uncounted or self.is_draining
            await self.store.patiently(lambda: self.store.release(owner, tokens, uncounted=free))
        self.unclaim(tokens)
        self.nudge(tasks=True)
        await self.announce("")

    async def reconcile(self) -> None:
        """Give back leases that only the database knows of: the reply that named them was lost on the way."""
        owner = self.owner()
        if owner is not None:
            # A token is claimed before it is written: one that is written and not claimed now has no one.
            orphans = [token for token in await self.store.held_tokens(owner) if token not in self.claimed]
            if orphans:
                log.info("workflow_leases.orphans_released", count=len(orphans))
                await self.give_back(orphans)

    # -- telling ------------------------------------------------------------------------------------------------

    def nudge(self, instance_id: str | None = None, *, tasks: bool = False) -> None:
        """Look for work now; `instance_id` got a message."""
        if instance_id is not None and (turn := self.by_instance.get(instance_id)) is not None:
            turn.is_dirty = True
        self.looks_for_tasks |= tasks
        self.wake.set()

    def note_due(self, due: datetime) -> None:
        """Look for work at that time."""
        at = asyncio.get_running_loop().time() + (due - datetime.now(UTC)).total_seconds()
        if at < self.next_due:
            self.next_due = at
            self.wake.set()

    async def announce(self, instance_id: str) -> None:
        """Wake the other replicas, where there are any."""
        if self.has_peers:
            await self.store.announce(instance_id)

    # -- background ---------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do the work in the background; a failure is logged, and what it held is found by `reconcile`."""
        task = asyncio.create_task(work)
        self.background.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.background.discard(task)
        self.progress.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("workflow_dispatch.failed", error=str(error), exc_info=error)
            self.nudge(tasks=True)

    async def until(self, is_reached: Callable[[], bool]) -> None:
        """Return when the condition holds; looked at whenever background work ends."""
        while not is_reached():
            self.progress.clear()
            await self.progress.wait()
