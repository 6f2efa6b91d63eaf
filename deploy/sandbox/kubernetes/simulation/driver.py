"""The one loop behind all simulated processes: a queue of work to do now and a heap of work to do later.

Everything in the simulation is a plain function that reads and writes the store and returns; nothing polls. Time is the
store's virtual clock, so a test may step it by hand (`due_at`, `settle`) while a server lets it run (`run`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

log = logging.getLogger(__name__)

Work = Callable[[], None]
_SLICE_S = 0.02
"""How long (real seconds) queued work may hold the event loop before requests are served again."""


class Clock(Protocol):
    """What the driver needs of a virtual clock."""

    def now(self) -> datetime: ...
    async def sleep(self, seconds: float) -> None: ...


@dataclass(order=True)
class Timer:
    """Work that is due at a moment of virtual time; `cancel` makes it nothing."""

    due: float
    order: int
    work: Work | None = field(compare=False)

    def cancel(self) -> None:
        """Forget the work. Safe to call twice and after it ran."""
        self.work = None


class Driver:
    """Runs work one piece at a time, in order of arrival; pieces with the same key that still wait are merged."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready: deque[Hashable] = deque()
        self._work: dict[Hashable, Work] = {}
        self._timers: list[Timer] = []
        self._pending: set[Hashable] = set()
        self._order = itertools.count()
        self._wake = asyncio.Event()

    def seconds(self) -> float:
        """Virtual seconds since the epoch."""
        return self._clock.now().timestamp()

    def soon(self, key: Hashable, work: Work) -> None:
        """Do `work` once as soon as possible; a waiting piece with the same key is kept instead."""
        if key not in self._work:
            self._work[key] = work
            self._ready.append(key)
            self._wake.set()

    def coalesce(self, key: Hashable, seconds: float, work: Work) -> None:
        """Do `work` once after that many virtual seconds, however often it is asked for until then."""
        if key not in self._pending:
            self._pending.add(key)

            def run() -> None:
                self._pending.discard(key)
                work()

            self.after(seconds, run)

    def after(self, seconds: float, work: Work) -> Timer:
        """Do `work` when that many virtual seconds have passed."""
        timer = Timer(self.seconds() + max(seconds, 0.0), next(self._order), work)
        heapq.heappush(self._timers, timer)
        self._wake.set()
        return timer

    def due_at(self) -> float | None:
        """When the next timer is due (virtual seconds since the epoch), None without one."""
        while self._timers and self._timers[0].work is None:
            heapq.heappop(self._timers)
        return self._timers[0].due if self._timers else None

    def settle(self) -> None:
        """Do everything that can be done at this moment; what raises, raises here."""
        while self._step():
            pass

    async def run(self) -> None:
        """Keep going until cancelled. A piece of work that fails is logged and dropped: one broken object must not
        stop the cluster.
        """
        while True:
            self._wake.clear()
            pause = time.perf_counter() + _SLICE_S
            while self._guarded_step():
                if time.perf_counter() > pause:
                    await asyncio.sleep(0)
                    pause = time.perf_counter() + _SLICE_S
            await self._rest()

    async def _rest(self) -> None:
        due = self.due_at()
        if due is None:
            await self._wake.wait()
            return
        napping = asyncio.ensure_future(self._clock.sleep(due - self.seconds()))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({napping, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            napping.cancel()
            waking.cancel()

    def _guarded_step(self) -> bool:
        try:
            return self._step()
        except Exception:  # background loop: see run()
            log.exception("simulation.work_failed")
            return True

    def _step(self) -> bool:
        if self._ready:
            key = self._ready.popleft()
            self._work.pop(key)()
            return True
        due = self.due_at()
        if due is None or due > self.seconds():
            return False
        work = heapq.heappop(self._timers).work
        if work is not None:
            work()
        return True
