"""The door to PostgreSQL, where no query shows it."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from budcluster.config import DatabaseSettings
from budcluster.kit.database import Database, DatabaseBusy, DatabaseFull, DatabaseUnavailable


async def _lose_connection(database: Database) -> None:
    async with database.reading():
        raise ConnectionResetError


async def test_a_lost_connection_is_an_outage(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        await _lose_connection(database)


async def test_a_connection_lost_during_cancellation_does_not_hide_that(database: Database) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await _lose_connection(database)

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_a_full_disk_of_the_database_is_told_as_such_and_can_be_waited_for(database: Database) -> None:
    with pytest.raises(DatabaseFull, match="Free space there") as caught:
        async with database.writing() as session:
            await session.execute(text("do $$ begin raise 'no space' using errcode = 'disk_full'; end $$"))
    assert isinstance(caught.value, DatabaseUnavailable)
    assert (caught.value.status, caught.value.slug()) == (503, "database-full")


async def test_a_statement_that_takes_too_long_is_told_as_such_and_can_be_waited_for(database: Database) -> None:
    with pytest.raises(DatabaseBusy, match="Try again") as caught:
        async with database.writing() as session:
            await session.execute(text("do $$ begin raise 'too long' using errcode = 'query_canceled'; end $$"))
    assert isinstance(caught.value, DatabaseUnavailable)
    assert (caught.value.status, caught.value.slug()) == (503, "database-busy")


async def test_a_connection_that_the_server_has_closed_is_not_handed_out(database: Database, database_url: str) -> None:
    async with database.reading() as session:
        first = await session.scalar(text("select pg_backend_pid()"))
    admin = await asyncpg.connect(database_url)
    assert await admin.fetchval("select pg_terminate_backend($1, 5000)", first)
    await admin.close()
    async with database.reading() as session:
        assert await session.scalar(text("select pg_backend_pid()")) != first


async def test_locks_that_hold_every_connection_are_an_outage_for_the_next(database_url: str) -> None:
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    few = Database(url, DatabaseSettings(pool_size=2, connect_timeout_s=0.2))
    async with few.connection(), few.connection():
        with pytest.raises(DatabaseUnavailable):
            async with few.connection():
                raise AssertionError
    await few.close()
