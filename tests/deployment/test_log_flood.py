"""Hundreds of megabytes of logs flow through with flat memory, however slowly somebody reads."""

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from budcluster.config import Settings
from budcluster.deployment.logs.cursor import Cursor
from budcluster.deployment.logs.reading import Wanted
from budcluster.deployment.logs.streams import DeploymentLogs, as_events, as_text
from budcluster.kit.database import Database
from budcluster.kube.resources import NAMESPACES, PODS
from tests.deployment.live import NAMESPACE, Live, chatty, pod

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MIB = 2**20
SIZE_MIB = 200
MAY_GROW = 32 * MIB


class FloodedCluster:
    """A simulated cluster in a process of its own, so that its memory is not counted as ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        argv = [sys.executable, "-m", "benchmarks.log_flood", str(path), str(SIZE_MIB)]
        self.process = subprocess.Popen(argv)

    def kubeconfig(self) -> str:
        end = time.monotonic() + 60
        while not (self._path.exists() and self._path.stat().st_size):
            assert self.process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        return self._path.read_text()


@pytest.fixture
def flooded(tmp_path: Path) -> Iterator[FloodedCluster]:
    cluster = FloodedCluster(tmp_path / "kubeconfig")
    yield cluster
    cluster.process.terminate()
    cluster.process.wait()


@pytest.fixture
async def logs(
    settings: Settings, database: Database, tmp_path: Path, flooded: FloodedCluster
) -> tuple[DeploymentLogs, UUID]:
    """Logs of a deployment whose one container has printed very much."""
    kubernetes = settings.kubernetes.model_copy(update={"workspace": tmp_path, "allow_local_servers": True})
    live = Live(settings.model_copy(update={"kubernetes": kubernetes}), database, flooded)
    await live.prepare_row()
    deployment_id = await live.add()
    async with live.access.open(live.cluster_id, operation="test") as door:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await door.client.create(NAMESPACES, namespace)
        made = await door.client.create(
            PODS, pod(deployment_id, "a", chatty("main", "sleep 99999")), namespace=NAMESPACE
        )
        while (made.get("status") or {}).get("phase") != "Running":
            made = await door.client.get(PODS, "a", namespace=NAMESPACE)
    return DeploymentLogs(database, live.access), deployment_id


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


async def test_memory_stays_flat_and_a_slow_reader_holds_nobody_up(logs: tuple[DeploymentLogs, UUID]) -> None:
    source, deployment_id = logs
    slow = as_events(await source.open(deployment_id, Wanted(), after=Cursor()), after=Cursor())
    await anext(slow)
    stream = await source.open(deployment_id, Wanted(), after=Cursor())
    gc.collect()
    before = highest = resident()
    size, longest = 0, 0.0
    ended = asyncio.Event()

    async def beat() -> None:
        """Feels for how long nothing else gets its turn: in processor time, since others may hold the processor."""
        nonlocal longest
        while not ended.is_set():
            begun = time.thread_time()
            await asyncio.sleep(0.01)
            longest = max(longest, time.thread_time() - begun)

    heart = asyncio.create_task(beat())
    async for part in as_text(stream, timestamps=True):
        size += len(part)
        highest = max(highest, resident())
    ended.set()
    await heart
    # The one that took nothing meanwhile still has its place.
    assert b"Received request" in await anext(slow)
    await slow.aclose()
    assert size > SIZE_MIB * MIB * 0.99
    assert highest - before < MAY_GROW
    assert longest < 1
