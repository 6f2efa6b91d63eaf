"""Events of operations for many listeners at once: one reader an operation and process, however many watch it.

A feed exists while somebody listens. It reads new events when PostgreSQL notifies (and now and then, in case it did
not), keeps the latest ones, and every listener copies from there; only one that is further behind reads by itself.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import select

from budcluster.api.sse import frame
from budcluster.kit.cancellation import raise_if_cancelled
from budcluster.kit.database import Database, DatabaseUnavailable
from budcluster.operations.ledger import CHANGED
from budcluster.operations.models import FINISHED, Operation, OperationEvent
from budcluster.operations.notices import Notices

log = structlog.get_logger(__name__)

_POLL_S: Final = 3.0
_KEPT: Final = 500
_BATCH: Final = 500


@dataclass(frozen=True)
class Frame:
    """One event, ready to be sent."""

    sequence: int
    content: bytes


class Feeds:
    """The feeds of one process."""

    def __init__(self, database: Database, notices: Notices) -> None:
        self._database = database
        self._notices = notices
        self._feeds: dict[UUID, _Feed] = {}
        self._is_closed = False

    @property
    def open_feeds(self) -> int:
        """How many operations are being watched."""
        return len(self._feeds)

    @property
    def listeners(self) -> int:
        """How many streams are open."""
        return sum(feed.listeners for feed in self._feeds.values())

    def close(self) -> None:
        """End every stream; listeners come back by themselves, to another replica or after the restart."""
        self._is_closed = True
        for feed in list(self._feeds.values()):
            feed.stop()

    async def listen(self, operation_id: UUID, *, after: int) -> AsyncGenerator[bytes, None]:
        """Frames of all events after that number, until the operation has ended and all were given."""
        if self._is_closed:
            return
        feed = self._feeds.get(operation_id)
        if feed is None or feed.is_over:
            feed = self._feeds[operation_id] = _Feed(self._database, self._notices, operation_id)
        feed.listeners += 1
        try:
            async for content in feed.frames(after):
                yield content
        finally:
            feed.listeners -= 1
            if not feed.listeners:
                feed.stop()
                if self._feeds.get(operation_id) is feed:
                    del self._feeds[operation_id]


class _Feed:
    def __init__(self, database: Database, notices: Notices, operation_id: UUID) -> None:
        self.listeners = 0
        self._database = database
        self._notices = notices
        self._id = operation_id
        self._latest: deque[Frame] = deque(maxlen=_KEPT)
        self._complete_from: int | None = None
        """Every event after this number is in `_latest` or fell out of it at the old end; None until first read."""
        self._position = 0
        self._is_over = False
        self._news = asyncio.Event()
        self._reader = asyncio.ensure_future(self._read())

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._is_over

    def stop(self) -> None:
        """End the reader, and every listener once it has what was read."""
        self._reader.cancel()
        self._end()

    async def frames(self, after: int) -> AsyncGenerator[bytes, None]:
        """Frames of all events after that number, until the feed is over."""
        while True:
            news = self._news
            found, position = await self._after(after)
            for one in found:
                yield one.content
            if position > after:
                after = position
            elif self._is_over:
                return
            else:
                await news.wait()

    async def _after(self, after: int) -> tuple[Sequence[Frame], int]:
        """Events after that number, from here or from the database, and the number up to which they are complete."""
        if self._complete_from is None:
            return (), after
        oldest = self._latest[0].sequence - 1 if len(self._latest) == _KEPT else self._complete_from
        if after >= oldest:
            found = [one for one in self._latest if one.sequence > after]
            return found, found[-1].sequence if found else after
        try:
            loaded = await self._load(after, up_to=oldest)
        except DatabaseUnavailable:
            await asyncio.sleep(_POLL_S)
            return (), after
        # Numbers may be missing (old log lines are dropped), so a short page reaches up to `oldest`.
        return loaded, loaded[-1].sequence if len(loaded) == _BATCH else oldest

    async def _load(self, after: int, up_to: int | None = None) -> Sequence[Frame]:
        wanted = select(OperationEvent).where(OperationEvent.operation_id == self._id, OperationEvent.sequence > after)
        if up_to is not None:
            wanted = wanted.where(OperationEvent.sequence <= up_to)
        async with self._database.reading() as session:
            events = (await session.scalars(wanted.order_by(OperationEvent.sequence).limit(_BATCH))).all()
        return [
            Frame(event.sequence, frame(event.data, event=event.type.value, event_id=str(event.sequence)))
            for event in events
        ]

    async def _read(self) -> None:
        try:
            with self._notices.bell(CHANGED, str(self._id)) as bell:
                while not self._is_over:
                    raise_if_cancelled()
                    try:
                        await self._read_once()
                    except DatabaseUnavailable:
                        log.info("feed.database_awaited", operation_id=str(self._id))
                    if not self._is_over:
                        await bell.wait(_POLL_S)
        finally:
            self._end()

    async def _read_once(self) -> None:
        async with self._database.reading() as session:
            operation = await session.get(Operation, self._id)
        if operation is None:
            self._is_over = True
            return
        if self._complete_from is None:
            # Listeners fetch what lies before this point themselves, each from where it wants to begin.
            self._complete_from = self._position = operation.sequence
        while found := await self._load(self._position):
            self._latest.extend(found)
            self._position = found[-1].sequence
        self._is_over = operation.status in FINISHED and self._position >= operation.sequence
        self._wake()

    def _end(self) -> None:
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
