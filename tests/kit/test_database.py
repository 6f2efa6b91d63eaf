"""The door to PostgreSQL, where no query shows it."""

import asyncio

import pytest
from sqlalchemy import text

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
