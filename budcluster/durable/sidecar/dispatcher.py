"""Moves work between the store and the connected workers.

Work that this process creates (the first turn of a new instance, an activity a turn schedules, the turn an activity's
result wakes) is leased in the statement that writes it and handed on at once. All else is found by the picking loop,
which runs when something local happens, when another replica calls, when the next timer is due, and once a second.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

import asyncpg
import structlog

from budcluster.durable.sidecar.activities import Activities
from budcluster.durable.sidecar.database import TEMPORARY
from budcluster.durable.sidecar.desk import Desk
from budcluster.durable.sidecar.limits import Limits
from budcluster.durable.sidecar.protos import pb
from budcluster.durable.sidecar.rerun import Rerun
from budcluster.durable.sidecar.store import Store
from budcluster.durable.sidecar.streams import Stream
from budcluster.durable.sidecar.watch import Watch

log = structlog.get_logger(__name__)

_POLL_S: Final = 1.0
_BATCH: Final = 32
_NO_TIMER_S: Final = 3600.0
_AFTER_DUE_S: Final = 0.002  # the database's clock decides; a moment later it surely agrees


class Dispatcher:
    """One process's share of the work. Everything runs on one event loop; nothing here blocks it."""

    def __init__(self, store: Store, limits: Limits, *, owner: Callable[[], int | None], watch: Watch) -> None:
        self.desk = Desk(store, limits, owner, watch)
        self.activities = Activities(self.desk)
        self.turns = self.activities.turns
        self._store = store

    # -- workers ------------------------------------------------------------------------------------------------

    def connect(self, *, keeps_history: bool) -> Stream:
        """A worker asks for work."""
        stream = self.desk.streams.open(keeps_history=keeps_history)
        self.desk.counters.streams_opened += 1
        self.desk.spawn(self._unstall())
        return stream

    def disconnect(self, stream: Stream) -> None:
        """A worker went away: what it held is handed out again at once."""
        self.desk.streams.close(stream)
        tokens = list(stream.tokens)
        stream.tokens.clear()
        for token in tokens:
            self.desk.forget(token)
        if tokens:
            self.desk.spawn(self.desk.give_back(tokens))

    async def _unstall(self) -> None:
        await self._store.patiently(self._store.unstall)
        self.desk.nudge(tasks=True)

    # -- finding work -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pick work until cancelled."""
        desk, loop = self.desk, asyncio.get_running_loop()
        next_poll = 0.0
        while True:
            desk.wake.clear()
            try:
                if loop.time() >= next_poll:
                    next_poll = loop.time() + _POLL_S
                    desk.looks_for_tasks = True
                if await self._pick():
                    continue
                if loop.time() >= desk.next_due:
                    due = await self._store.next_due()
                    pause = _NO_TIMER_S if due is None else due.total_seconds() + _AFTER_DUE_S
                    desk.next_due = loop.time() + pause
            except (*TEMPORARY, asyncpg.ForeignKeyViolationError) as error:
                log.warning("workflow_picker.interrupted", error=str(error))
                await asyncio.sleep(0.2)
                continue
            except Exception:  # background loop: it must not end while the process lives
                log.exception("workflow_picker.failed")
                await asyncio.sleep(1)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(next_poll, desk.next_due) - loop.time())):
                    await desk.wake.wait()

    async def _pick(self) -> bool:
        """Take what is due and free; whether there may be more."""
        owner = self.desk.owner()
        if owner is None or not self.desk.takes_work():
            return False
        more = await self._pick_turns(owner)
        return await self._pick_tasks(owner) or more

    async def _pick_turns(self, owner: int) -> bool:
        desk = self.desk
        room = min(_BATCH, desk.limits.turns_in_flight - len(desk.turns))
        if room <= 0:
            return False
        tokens = desk.claim(room)
        leases = await desk.claiming(tokens, self._store.lease_turns(owner, tokens))
        desk.unclaim(set(tokens) - {lease.token for lease in leases})
        for lease in leases:
            desk.spawn(self.turns.begin(lease))
        return len(leases) == room

    async def _pick_tasks(self, owner: int) -> bool:
        desk = self.desk
        room = min(_BATCH, desk.limits.activities_in_flight - len(desk.tasks))
        if room <= 0 or not desk.looks_for_tasks:
            return False
        desk.looks_for_tasks = False
        tokens = desk.claim(room)
        tasks = await desk.claiming(tokens, self._store.lease_tasks(owner, tokens))
        desk.unclaim(set(tokens) - {task.token for task in tasks})
        for task in tasks:
            self.activities.begin(task)
        desk.looks_for_tasks |= len(tasks) == room
        return len(tasks) == room

    # -- messages, lifecycle ------------------------------------------------------------------------------------

    async def post(self, instance_id: str, event: pb.HistoryEvent, *, at_once: bool = False) -> bool | None:
        """Send an instance a message; see Store.post. Raises StoreAway."""
        accepted = await self._store.patiently(
            lambda: self._store.post(instance_id, event, at_once=at_once), patience_s=10
        )
        if accepted:
            self.desk.nudge(instance_id)
            await self.desk.announce(instance_id)
        return accepted

    async def rerun(self, plan: Rerun) -> None:
        """Create an instance from a part of another's history. Raises InstanceExists, StoreAway."""
        await self._store.patiently(lambda: self._store.rerun(plan), patience_s=10)
        self.desk.nudge(tasks=True)
        await self.desk.announce(plan.instance.instance_id)

    async def drain(self, grace_s: float) -> None:
        """Take no new work, wait for what runs, then end the streams. What is left is given back uncounted."""
        desk = self.desk
        desk.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await desk.until(lambda: not (desk.turns or desk.tasks or desk.background))
        for stream in desk.streams:
            self.disconnect(stream)
            stream.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await desk.until(lambda: not desk.background)
        for task in list(desk.background):
            task.cancel()

    def snapshot(self) -> dict[str, int]:
        """Present state and counters."""
        return {
            "workers": len(self.desk.streams),
            "turns_in_flight": len(self.desk.turns),
            "activities_in_flight": len(self.desk.tasks),
            **asdict(self.desk.counters),
        }
