"""The workflows' PostgreSQL: its connections, and patience while it is away.

Some writes are relaxed: they do not wait for the disk. They survive the death of this process like all others; only
when PostgreSQL or the machine itself crashes within a fraction of a second can they be gone, and then together with
all that was written after them, so that the step before simply happens again. What leaves the database (an activity
that starts, an answer that something was accepted) always waits for the disk, and for all that was written before it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg

Result = TypeVar("Result")

_POOL_SIZE: Final = 6  # of each of the two pools
_COMMAND_TIMEOUT_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 1.0

TEMPORARY: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg 0.32 raises where a connection is cut while it sends
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""Errors that pass: the server is away, restarts, fails over, is out of room, or chose us as a deadlock's victim."""


class StoreAway(ConnectionError):
    """PostgreSQL did not answer for as long as the caller was ready to wait."""


async def _keep_as_is(_connection: object) -> None:
    """No reset query when a connection goes back: it would cost a round trip, and no statement here leaves state."""


class Database:
    """Two pools of connections, one of them for relaxed writes. Safe for concurrent use on one event loop."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._strict: asyncpg.Pool[asyncpg.Record] | None = None
        self._relaxed: asyncpg.Pool[asyncpg.Record] | None = None
        self.interruptions = 0
        """How often a statement had to be repeated; then it is not known which of them took effect."""

    async def open(self) -> None:
        """Make the pools; they connect when first used, so a server that is away does no harm."""
        self._strict = await self._make_pool({})
        self._relaxed = await self._make_pool({"synchronous_commit": "off"})

    async def close(self) -> None:
        """Close all connections; those in use are given two seconds."""
        for pool in (self._strict, self._relaxed):
            if pool is None:
                continue
            try:
                async with asyncio.timeout(2):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    def pool(self, *, relaxed: bool = False) -> "asyncpg.Pool[asyncpg.Record]":
        """Where statements run. Raises StoreAway before `open`."""
        pool = self._relaxed if relaxed else self._strict
        if pool is None:
            raise StoreAway("The embedded sidecar is not started.")
        return pool

    async def patiently(self, work: Callable[[], Awaitable[Result]], *, patience_s: float | None = None) -> Result:
        """Repeat `work` while PostgreSQL is away, for ever or for `patience_s`; then raise StoreAway."""
        loop = asyncio.get_running_loop()
        deadline = None if patience_s is None else loop.time() + patience_s
        pause = 0.05
        while True:
            try:
                return await work()
            except TEMPORARY as error:
                self.interruptions += 1
                if deadline is not None and loop.time() + pause > deadline:
                    raise StoreAway("The database of the workflows does not answer; try again.") from error
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, guards nothing
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _make_pool(self, settings: dict[str, str]) -> "asyncpg.Pool[asyncpg.Record]":
        return await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=_POOL_SIZE,
            reset=_keep_as_is,
            command_timeout=_COMMAND_TIMEOUT_S,
            server_settings={"application_name": "budcluster-workflows", **settings},
        )
