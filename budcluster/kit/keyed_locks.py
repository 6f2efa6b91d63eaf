"""One lock a key, within this process: for one task at a time, or for a few."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

KeyT = TypeVar("KeyT", bound=Hashable)


class KeyedLocks(Generic[KeyT]):
    """Lets one task at a time work on what a key names. A key that nobody holds or waits for costs nothing."""

    def __init__(self, *, at_once: int = 1) -> None:
        """`at_once` tasks instead of one."""
        self._at_once = at_once
        self._locks: WeakValueDictionary[KeyT, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, key: KeyT) -> AsyncIterator[None]:
        """Wait for the key's lock and keep it until the end of the block. First come, first served."""
        lock = self._locks.setdefault(key, asyncio.Semaphore(self._at_once))
        async with lock:
            yield
