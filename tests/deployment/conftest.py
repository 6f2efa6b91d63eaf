"""A simulated cluster of one machine with AMD GPUs and one without, and what the service knows of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from budcluster.config import Settings
from budcluster.kit.database import Database
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import Live


@pytest.fixture
def model_cluster() -> Iterator[KubernetesServer]:
    with KubernetesServer(Options(nodes="mi300x:1,cpu:1", clock_factor=60)) as server:
        yield server


@pytest.fixture
async def live(settings: Settings, database: Database, tmp_path: Path, model_cluster: KubernetesServer) -> Live:
    kubernetes = settings.kubernetes.model_copy(update={"workspace": tmp_path, "allow_local_servers": True})
    live = Live(settings.model_copy(update={"kubernetes": kubernetes}), database, model_cluster)
    await live.prepare()
    return live
