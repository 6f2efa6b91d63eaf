"""Fixtures of long work: the service on a real database, and notices that really travel."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from budcluster.kit.database import Database
from budcluster.operations.journal import Journals
from budcluster.operations.ledger import CHANNELS
from budcluster.operations.notices import Notices
from budcluster.operations.services import Operations
from tests.operations.desk import Desk, EngineTwin, eventually


@pytest.fixture
async def notices(database_url: str) -> AsyncIterator[Notices]:
    notices = Notices(database_url, CHANNELS)
    task = asyncio.create_task(notices.run())

    async def connected() -> bool:
        return notices.is_connected

    await eventually(connected)
    yield notices
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def desk(database: Database, notices: Notices) -> Desk:
    return Desk(database, Operations(), Journals(database, notices))


@pytest.fixture
def engine() -> EngineTwin:
    return EngineTwin()
