"""The door to PostgreSQL, where no query shows it."""

import asyncio

import pytest

from budcluster.kit.database import Database, DatabaseUnavailable


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
