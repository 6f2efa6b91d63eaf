"""A changing route commits once, before it answers; what follows the commit never undoes it."""

from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import select, text

from budcluster.api.dependencies import AfterCommit, Write
from budcluster.api.transaction import TransactionalRoute
from budcluster.cluster.models import Cluster
from budcluster.kit.database import Database
from tests.api.test_problems import assert_problem

LAB = {"name": "lab", "provider": "ON_PREMISES"}


@pytest.fixture
async def cluster_id(client: httpx.AsyncClient) -> UUID:
    return UUID((await client.post("/clusters", json=LAB)).json()["id"])


def add_route(app: FastAPI, path: str, endpoint: object) -> None:
    router = APIRouter(route_class=TransactionalRoute)
    router.add_api_route(path, endpoint, methods=["PATCH"])  # type: ignore[arg-type]
    app.include_router(router)


async def test_what_follows_sees_the_commit_and_its_failure_changes_no_answer(
    app: FastAPI, client: httpx.AsyncClient, database: Database, cluster_id: UUID
) -> None:
    seen: list[str | None] = []

    async def rename(session: Write, after_commit: AfterCommit) -> None:
        cluster = await session.get_one(Cluster, cluster_id)
        cluster.region = "moved"

        async def look() -> None:
            async with database.reading() as other:
                seen.append(await other.scalar(select(Cluster.region)))
            raise RuntimeError("the engine is away")

        after_commit(look)

    add_route(app, "/rename", rename)
    assert (await client.patch("/rename")).status_code == 200
    assert seen == ["moved"]


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
