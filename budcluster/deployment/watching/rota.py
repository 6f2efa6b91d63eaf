"""When which deployment is to be looked at, and the looking itself: several at once, each by one look at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from budcluster.kit.cancellation import raise_if_cancelled

_AT_ONCE: Final = 16
"""A node that gives no log holds up its own deployments, and not the others of the cluster."""
_LONGEST_WAIT_S: Final = 60.0
_GATHER_S: Final = 0.05
"""Marks come in bursts: one round for all of them."""


class Rota:
    """Deployments and when they are due."""

    def __init__(self) -> None:
        self._due: dict[UUID, float] = {}
        self._looked_at: set[UUID] = set()
        self._woken = asyncio.Event()

    def mark(self, deployment_id: UUID, *, after_s: float) -> None:
        """Have it looked at once after these seconds, or sooner where it is due sooner already."""
        due = asyncio.get_running_loop().time() + after_s
        self._due[deployment_id] = min(due, self._due.get(deployment_id, due))
        self._woken.set()

    async def run(self, look: Callable[[UUID], Awaitable[None]]) -> None:
        """Look at whatever is due, for ever. One that is marked while it is looked at is looked at again."""
        async with asyncio.TaskGroup() as group:
            while True:
                raise_if_cancelled()
                self._woken.clear()
                for deployment_id in self._take():
                    group.create_task(self._look(look, deployment_id))
                try:
                    async with asyncio.timeout(self._wait_s()):
                        await self._woken.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(_GATHER_S)

    def _take(self) -> list[UUID]:
        now = asyncio.get_running_loop().time()
        due = [one for one, at in self._due.items() if at <= now and one not in self._looked_at]
        taken = due[: _AT_ONCE - len(self._looked_at)]
        for one in taken:
            del self._due[one]
        self._looked_at.update(taken)
        return taken

    def _wait_s(self) -> float:
        """Until the next is due; each look that ends wakes us, too."""
        if len(self._looked_at) >= _AT_ONCE:
            return _LONGEST_WAIT_S
        now = asyncio.get_running_loop().time()
        due = [at for one, at in self._due.items() if one not in self._looked_at]
        return max(min(due, default=now + _LONGEST_WAIT_S) - now, 0.01)

    async def _look(self, look: Callable[[UUID], Awaitable[None]], deployment_id: UUID) -> None:
        try:
            await look(deployment_id)
        finally:
            self._looked_at.discard(deployment_id)
            self._woken.set()
