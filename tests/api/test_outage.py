"""A database that comes late, goes away and comes back is waited for, not died of."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from devstack.postgres import EmbeddedPostgres
from tests.api.test_problems import assert_problem
from tests.fixtures.app import client_of, quiet_service, running, settings_on

LAB = {"name": "lab", "provider": "ON_PREMISES"}


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of this test alone, to be stopped at will."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("own-server"), durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def late_client(server: EmbeddedPostgres, key_folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The application, started while its database is down."""
    admin = await asyncpg.connect(server.url("postgres"))
    await admin.execute("create database budcluster_db")
    await admin.close()
    settings = settings_on(server.url("budcluster_db"), key_folder)
    server.stop()
    async with running(quiet_service(settings), wait=False) as app, client_of(app) as client:
        yield client


async def until(client: httpx.AsyncClient, path: str, status: int, deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while (reply := await client.get(path)).status_code != status:
        assert time.monotonic() < end, f"{path} still answers {reply.status_code}: {reply.text}"
        await asyncio.sleep(0.1)


async def test_the_service_lives_through_every_absence_of_its_database(
    late_client: httpx.AsyncClient, server: EmbeddedPostgres
) -> None:
    assert (await late_client.get("/healthz")).status_code == 200
    down = await late_client.get("/readyz")
    assert down.status_code == 503
    assert set(down.json()["problems"]) >= {"start", "database"}
    early = await late_client.get("/clusters")
    assert_problem(early, 503, "/problems/service-starting")
    assert int(early.headers["Retry-After"]) > 0

    await asyncio.to_thread(server.start)
    await until(late_client, "/readyz", 200)
    assert (await late_client.post("/clusters", json=LAB)).status_code == 201

    await asyncio.to_thread(server.stop)
    refused = await late_client.post("/clusters", json={**LAB, "name": "during"})
    assert_problem(refused, 503, "/problems/database-unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert (await late_client.get("/healthz")).status_code == 200
    assert "database" in (await late_client.get("/readyz")).json()["problems"]

    await asyncio.to_thread(server.start)
    await until(late_client, "/clusters", 200)
    assert [item["name"] for item in (await late_client.get("/clusters")).json()["items"]] == ["lab"]
    assert (await late_client.post("/clusters", json={**LAB, "name": "during"})).status_code == 201
