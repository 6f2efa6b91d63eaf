"""What was read from the cluster and not yet sent to the reader."""

import asyncio
from dataclasses import dataclass
from typing import Final

from budcluster.deployment.logs.cursor import Source

WINDOW: Final = 256 * 1024
"""Characters. A slow reader stops the reading here, and with it the cluster's sending: nothing else waits for it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a container's log, masked."""

    source: Source
    stamp: str
    """Time as the cluster wrote it."""
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know about the stream itself."""

    text: str


class Window:
    """Passes entries from many readers to one taker, and holds a bounded number of characters."""

    def __init__(self, limit: int = WINDOW) -> None:
        self._limit = limit
        self._entries: list[Entry | Notice] = []
        self._size = 0
        self._ended = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, entry: Entry | Notice) -> None:
        """Hand one on; waits while the window is full."""
        while self._size >= self._limit:
            self._room.clear()
            await self._room.wait()
        self._entries.append(entry)
        self._size += len(entry.text)
        self._filled.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._filled.set()

    async def take(self) -> list[Entry | Notice]:
        """All there is, as soon as there is some; empty at the end."""
        await self._filled.wait()
        taken, self._entries, self._size = self._entries, [], 0
        if not self._ended:
            self._filled.clear()
        self._room.set()
        return taken
