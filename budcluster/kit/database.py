"""PostgreSQL through async SQLAlchemy: one engine a process, short sessions, two kinds of them.

A `ReadSession` cannot be passed where a `WriteSession` is asked for, so mypy sees a write in a read-only path. Sessions
are short: none stays open while the outside world is slow.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, NewType

import orjson
import structlog
from sqlalchemy import DateTime, Enum, Integer, MetaData, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from budcluster.config import DatabaseSettings
from budcluster.kit.cancellation import raise_if_cancelled
from budcluster.kit.errors import UpstreamUnavailable

log = structlog.get_logger(__name__)

ReadSession = NewType("ReadSession", AsyncSession)
WriteSession = NewType("WriteSession", ReadSession)

CONSTRAINT_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


_RENEWED_AFTER_S: Final = 300
"""Balancers and firewalls forget connections that were silent for longer, and tell nobody."""


class Base(DeclarativeBase):
    """Every table of the service."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)
    type_annotation_map = {datetime: DateTime(timezone=True), dict[str, Any]: JSONB, list[Any]: JSONB}  # noqa: RUF012


class Versioned:
    """Rows that clients change: `version` rises with every update and becomes the ETag."""

    version: Mapped[int] = mapped_column(Integer, nullable=False)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"), onupdate=text("now()"))

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805 - SQLAlchemy calls it with the class
        return {"version_id_col": cls.version, "eager_defaults": True}


def text_enum(kind: type[StrEnum]) -> Enum:
    """An enum kept as text: members can be added without a migration."""
    return Enum(
        kind, native_enum=False, create_constraint=False, length=32, values_callable=lambda e: [m.value for m in e]
    )


class DatabaseUnavailable(UpstreamUnavailable):
    """The service cannot reach its PostgreSQL just now. Nothing was changed; it reconnects by itself; try again."""

    title = "The database is not available"

    sentence: ClassVar = (
        "The service cannot reach its database just now; nothing was changed. Try again in a few seconds."
    )

    def __init__(self) -> None:
        super().__init__(self.sentence, headers={"Retry-After": "5"})


class DatabaseFull(DatabaseUnavailable):
    """The disk of the service's PostgreSQL is full. Nothing was changed; once it has space, all goes on by itself."""

    title = "The database's disk is full"
    sentence = "The disk of the service's database is full; nothing was changed. Free space there, then try again."


class DatabaseBusy(DatabaseUnavailable):
    """The service's PostgreSQL did not get to it in time, or others held what this needed. Nothing was changed."""

    title = "The database is busy"
    sentence = "The service's database took too long to answer; nothing was changed. Try again in a few seconds."


class Database:
    """The engine and its sessions. Create inside the event loop that will use it."""

    def __init__(self, url: URL, settings: DatabaseSettings | None = None) -> None:
        self._settings = settings or DatabaseSettings()
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=self._settings.pool_size,
            max_overflow=self._settings.pool_overflow,
            pool_timeout=self._settings.connect_timeout_s,
            pool_recycle=_RENEWED_AFTER_S,
            # The one that was used last: it knows the statements, and what a burst brought may rest.
            pool_use_lifo=True,
            # Errors go to logs, and parameters are what people sent.
            hide_parameters=True,
            # Written by the standard library, which takes whole numbers of any size; read by the faster one.
            json_serializer=lambda value: json.dumps(value, separators=(",", ":")),
            json_deserializer=orjson.loads,
            connect_args={
                "timeout": self._settings.connect_timeout_s,
                "server_settings": {
                    "application_name": "budcluster",
                    "statement_timeout": str(int(self._settings.statement_timeout_s * 1000)),
                },
            },
        )
        event.listen(self.engine.sync_engine, "checkout", _require_open)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        # What only looks needs no transaction around it, which takes two round trips.
        looking = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._looks = async_sessionmaker(looking, expire_on_commit=False, autoflush=False)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[ReadSession]:
        """A session to look with: each statement sees what is committed by then. Raises DatabaseUnavailable."""
        with _translated():
            async with self._looks() as session:
                yield ReadSession(session)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[WriteSession]:
        """One transaction: committed at the end, rolled back on any error. Raises DatabaseUnavailable."""
        with _translated():
            async with self._sessions.begin() as session:
                yield WriteSession(ReadSession(session))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """One without transactions, for locks that are held for long. Raises DatabaseUnavailable where none is free."""
        async with AsyncExitStack() as opened:
            with _translated():
                plain = await opened.enter_async_context(self.engine.connect())
            yield await plain.execution_options(isolation_level="AUTOCOMMIT")

    async def ping(self) -> None:
        """Raises DatabaseUnavailable when no query can be answered."""
        async with self.reading() as session:
            await session.execute(text("select 1"))

    async def wait_until_up(self) -> None:
        """Wait for the database, at most `start_timeout_s` seconds. Raises DatabaseUnavailable."""
        deadline = time.monotonic() + self._settings.start_timeout_s
        waiting = False
        while True:
            try:
                await self.ping()
            except DatabaseUnavailable:
                if time.monotonic() >= deadline:
                    raise
                if not waiting:
                    log.warning("database.awaited", host=self.engine.url.host, database=self.engine.url.database)
                    waiting = True
                await asyncio.sleep(1)
            else:
                return

    async def close(self) -> None:
        """Close every pooled connection."""
        await self.engine.dispose()


def _require_open(connection: Any, _record: object, _proxy: object) -> None:
    """Give nobody a connection that the server has closed. The driver knows; a ping takes three round trips."""
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError


class _translated:  # noqa: N801 - reads as a phrase where it is used
    """Turns "the database is away" into DatabaseUnavailable; every other error passes unchanged."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and is_outage(error):
            raise_if_cancelled()
            raise outage_of(error) from error


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the server is away or short of something, as against a statement that was wrong."""
    if isinstance(error, DBAPIError):
        state = _state_of(error)
        # 08 connection, 53 insufficient resources, 57P0x shutdown and crash, 57014 took longer than a statement may
        # (PostgreSQL 17, appendix A).
        return (
            error.connection_invalidated
            or state[:2] in {"08", "53"}
            or state in {"57P01", "57P02", "57P03", _TOO_SLOW}
            or (isinstance(error, InterfaceError | OperationalError) and not state)
        )
    return isinstance(error, PoolTimeout | ConnectionError | TimeoutError | FileNotFoundError)


def outage_of(error: BaseException) -> DatabaseUnavailable:
    """What callers are told of an outage."""
    kinds = {_DISK_FULL: DatabaseFull, _TOO_SLOW: DatabaseBusy}
    return kinds.get(_state_of(error), DatabaseUnavailable)()


_DISK_FULL: Final = "53100"
_TOO_SLOW: Final = "57014"


def _state_of(error: BaseException) -> str:
    return str(getattr(getattr(error, "orig", None), "sqlstate", "") or "")
