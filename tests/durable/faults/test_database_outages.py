"""What survives when PostgreSQL goes away under load: a server of its own, stopped and crashed for real."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from budcluster.migrations import migrate
from devstack.postgres import EmbeddedPostgres
from tests.durable.faults.conftest import Site, site_on
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("outages"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def own_site(server: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[Site]:
    name = f"outage_{time.monotonic_ns()}"
    admin = await asyncpg.connect(server.url("postgres"))
    await admin.execute(f"create database {name}")
    await admin.close()
    await migrate(make_url(server.url(name)).set(drivername="postgresql+asyncpg"))
    with site_on(server.url(name), tmp_path) as site:
        yield site


def crash(server: EmbeddedPostgres) -> None:
    """`pg_ctl restart -m immediate`: no shutdown checkpoint, every session is cut."""
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)
    eventually(lambda: server.pid() is None)
    if server._process is not None:
        server._process.wait()
        server._process = None
    server.start()


def test_workflows_go_on_when_postgresql_crashes_and_restarts_under_load(
    own_site: Site, server: EmbeddedPostgres
) -> None:
    own_site.replica()
    ids = [f"p{number}" for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda id_: own_site.start("steps", 3, instance_id=id_), ids))
        crash(server)
    assert all(own_site.completed(id_) for id_ in ids)
    ended = own_site.count("end")
    assert all(ended[f"{id_}/{number}"] for id_ in ids for number in (1, 2, 3))
    repeated = sum(own_site.count("begin").values()) - 300
    print(f"instances 100, activities 300, lost 0, repeated {repeated}")  # noqa: T201 - the crash matrix
    assert repeated <= 16


def test_a_result_that_comes_in_while_postgresql_is_away_is_written_when_it_is_back(
    own_site: Site, server: EmbeddedPostgres
) -> None:
    """Longer than the 30 seconds after which the SDK stops waiting for the answer."""
    held = own_site.hold(2)
    own_site.replica()
    own_site.start("steps", 3, instance_id="o")
    own_site.until_begun("o", 2)
    server.stop()
    held.unlink()
    eventually(lambda: own_site.count("end")["o/2"] == 1)
    away_until = time.monotonic() + 33
    eventually(lambda: time.monotonic() > away_until, within_s=40)
    server.start()
    assert own_site.completed("o")
    assert own_site.count("begin") == {"o/1": 1, "o/2": 1, "o/3": 1}


async def test_nothing_runs_twice_when_the_connection_of_the_lock_is_cut(own_site: Site) -> None:
    held = own_site.hold(1)
    replicas = [own_site.replica() for _ in range(2)]
    assert len(replicas) == 2
    for number in range(10):
        own_site.start("steps", 1, instance_id=f"l{number}")
    eventually(lambda: sum(own_site.count("begin").values()) == 10)
    connection = await asyncpg.connect(own_site.url)
    owners = {row["id"] for row in await connection.fetch("select id from wf_owners")}
    for _ in range(5):
        cut = await connection.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where application_name = 'budcluster-workflow-owner' and datname = current_database()"
        )
        assert cut >= 1
        async with asyncio.timeout(10):
            while await connection.fetchval(
                "select count(*) from pg_locks where locktype = 'advisory' and classid = 8472 and granted"
                " and database = (select oid from pg_database where datname = current_database())"
            ) < len(owners):
                pass
    probes_until = time.monotonic() + 5
    eventually(lambda: time.monotonic() > probes_until)
    assert {row["id"] for row in await connection.fetch("select id from wf_owners")} == owners
    await connection.close()
    held.unlink()
    assert all(own_site.completed(f"l{number}") for number in range(10))
    assert set(own_site.count("begin").values()) == {1}


async def test_a_replica_that_starts_before_postgresql_works_as_soon_as_it_is_there(
    own_site: Site, server: EmbeddedPostgres
) -> None:
    server.stop()
    own_site.replica()
    server.start()
    own_site.start("steps", 2, instance_id="early")
    assert own_site.completed("early")
