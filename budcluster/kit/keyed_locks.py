"""One lock a key, within this process."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

KeyT = TypeVar("KeyT", bound=Hashable)


class KeyedLocks(Generic[KeyT]):
    """Lets one task at a time work on what a key names. A key that nobody holds or waits for costs nothing."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[KeyT, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, key: KeyT) -> AsyncIterator[None]:
        """Wait for the key's lock and keep it until the end of the block."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield
