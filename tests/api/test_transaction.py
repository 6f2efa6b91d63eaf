"""A changing route commits once, before it answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import select, text

from budcluster.api.dependencies import Changing, Write
from budcluster.api.transaction import TransactionalRoute
from budcluster.cluster.models import Cluster
from budcluster.kit.database import Database
from tests.api.test_problems import assert_problem

LAB = {"name": "lab", "provider": "ON_PREMISES"}


@pytest.fixture
async def cluster_id(client: httpx.AsyncClient) -> UUID:
    return UUID((await client.post("/clusters", json=LAB)).json()["id"])


def add_route(app: FastAPI, path: str, endpoint: object, *, method: str = "PATCH") -> None:
    router = APIRouter(route_class=TransactionalRoute)
    router.add_api_route(path, endpoint, methods=[method])  # type: ignore[arg-type]
    app.include_router(router)


async def test_the_change_is_committed_when_the_answer_is_there(
    app: FastAPI, client: httpx.AsyncClient, database: Database, cluster_id: UUID
) -> None:
    async def rename(session: Write) -> None:
        (await session.get_one(Cluster, cluster_id)).region = "moved"

    add_route(app, "/rename", rename)
    assert (await client.patch("/rename")).status_code == 200
    async with database.reading() as session:
        assert await session.scalar(select(Cluster.region)) == "moved"


async def test_an_error_rolls_everything_back(
    app: FastAPI, client: httpx.AsyncClient, database: Database, cluster_id: UUID
) -> None:
    async def fail(session: Write) -> None:
        (await session.get_one(Cluster, cluster_id)).region = "moved"
        await session.flush()
        raise RuntimeError

    add_route(app, "/fail", fail)
    assert (await client.patch("/fail")).status_code == 500
    async with database.reading() as session:
        assert await session.scalar(select(Cluster.region)) is None


async def test_a_change_that_lost_a_race_is_told_so(
    app: FastAPI, client: httpx.AsyncClient, database: Database, cluster_id: UUID
) -> None:
    async def slow(session: Write) -> None:
        cluster = await session.get_one(Cluster, cluster_id)
        async with database.writing() as other:
            await other.execute(text("update clusters set version = version + 1"))
        cluster.region = "late"

    add_route(app, "/slow", slow)
    assert_problem(await client.patch("/slow"), 412, "/problems/stale-version")


async def test_what_waits_before_it_begins_holds_no_connection_whatever_key_it_carries(
    app: FastAPI, client: httpx.AsyncClient, cluster_id: UUID
) -> None:
    arrived, many, hub = 0, 40, asyncio.Event()  # many more than there are connections
    everybody = asyncio.Event()

    async def slowly(changing: Changing) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == many:
            everybody.set()
        await hub.wait()
        (await (await changing.begin()).get_one(Cluster, cluster_id)).version  # noqa: B018 - a read is enough

    add_route(app, "/slowly", slowly, method="POST")
    asked = [
        asyncio.create_task(client.post("/slowly", headers={"Idempotency-Key": str(number)})) for number in range(many)
    ]
    await asyncio.wait_for(everybody.wait(), 30)
    assert (await client.get(f"/clusters/{cluster_id}")).status_code == 200
    hub.set()
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_held_is_given_back_when_the_transaction_is_over(
    app: FastAPI, client: httpx.AsyncClient, database: Database, cluster_id: UUID, fails: bool
) -> None:
    seen: list[str | None] = []

    @asynccontextmanager
    async def lock() -> AsyncIterator[None]:
        try:
            yield
        finally:
            async with database.reading() as other:
                seen.append(await other.scalar(select(Cluster.region)))

    async def move(changing: Changing) -> None:
        await changing.hold(lock())
        (await (await changing.begin()).get_one(Cluster, cluster_id)).region = "moved"
        if fails:
            raise RuntimeError

    add_route(app, "/move", move)
    await client.patch("/move")
    assert seen == [None if fails else "moved"]
