"""Onboarding waits for what is away, an API server or the database, and goes on where it was."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from budcluster.bootstrap import make_service
from budcluster.cluster.workflows import ONBOARD_STEPS
from budcluster.config import Settings
from budcluster.migrations import migrate
from devstack.postgres import EmbeddedPostgres
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import until
from tests.fixtures.app import client_of, running
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def test_an_api_server_that_is_gone_for_a_minute_and_again_in_every_single_step_is_waited_for(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.register()
    gpu_cluster.be_gone(60)
    operation_id = await onboarder.begin(cluster_id, gpu_cluster)
    assert await onboarder.is_running(operation_id, "check_access")
    met = set()
    for step in ONBOARD_STEPS[1:]:
        if await onboarder.is_running(operation_id, step.name):
            await asyncio.to_thread(gpu_cluster.be_gone, 2)
            met.add(step.name)
    operation = await onboarder.ended(operation_id)
    assert operation["status"] == "SUCCEEDED", operation
    cluster = await onboarder.cluster(cluster_id)
    assert (cluster["status"], cluster["gpu_count"]) == ("READY", 9)
    # The shortest steps may be over before anybody can look.
    assert {"prepare_cluster", "install_prometheus", "install_gpu_operator", "install_hami"} <= met


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server that may be stopped."""
    server = EmbeddedPostgres(tmp_path / "postgres")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def own_onboarder(own_postgres: EmbeddedPostgres, cluster_settings: Settings) -> AsyncIterator[Onboarder]:
    """A running service on that server."""
    admin = await asyncpg.connect(own_postgres.url("postgres"))
    await admin.execute("create database own")
    await admin.close()
    url = own_postgres.url("own")
    await migrate(make_url(url).set(drivername="postgresql+asyncpg"))
    settings = Settings.model_validate({**cluster_settings.model_dump(), "database_url": url})
    service = make_service(settings)
    async with running(service) as app, client_of(app, timeout=60) as client:
        yield Onboarder(client)


async def test_a_database_that_is_away_for_half_a_minute_in_the_middle_is_waited_for(
    own_onboarder: Onboarder, own_postgres: EmbeddedPostgres
) -> None:
    with KubernetesServer(Options(nodes="cpu-amx:1", clock_factor=60)) as cluster:
        cluster_id = await own_onboarder.register()
        operation_id = await own_onboarder.begin(cluster_id, cluster)
        assert await own_onboarder.is_running(operation_id, "prepare_cluster")
        await asyncio.to_thread(own_postgres.stop)
        stopped = time.monotonic()

        async def away_s() -> float:
            assert (await own_onboarder.client.get(f"/operations/{operation_id}")).status_code == 503
            return time.monotonic() - stopped

        async def is_ready() -> bool:
            return (await own_onboarder.client.get("/readyz")).status_code == 200

        await until(away_s, lambda seconds: seconds > 30, deadline_s=60)
        await asyncio.to_thread(own_postgres.start)
        await until(is_ready, bool)
        operation = await own_onboarder.ended(operation_id)
        assert operation["status"] == "SUCCEEDED", operation
        assert (await own_onboarder.cluster(cluster_id))["status"] == "READY"
