"""The inventory of 5,000 heavy nodes (52 MB of JSON): what a first sync costs, and how soon a page is answered.

For comparison, measured on such a machine with the same nodes: the official Python client's `list_node()` takes 4.4 s
of processor time and 419 MB, `kubectl get nodes` 1.7 to 2.1 s and 229 MB.
"""

import asyncio
import contextlib
import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server
from uuid import UUID, uuid4

import psutil
from sqlalchemy import func, select
from sqlalchemy.engine import URL, make_url

from benchmarks.clusters_list import first_answer, requested, serving
from benchmarks.measure import Table
from benchmarks.scratch import scratch_folder
from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.credentials.keys import make_key_files
from budcluster.hardware.inventory_store import InventoryStore
from budcluster.hardware.models import InventoryNode, InventoryState
from budcluster.kit.clock import SystemClock
from budcluster.kit.database import Database
from budcluster.kube.door import Doors
from budcluster.kube.kubeconfig import Kubeconfig, read_kubeconfig
from budcluster.migrations import migrate
from budcluster.monitoring.inventory_keeper import InventoryKeeper, Pace
from budcluster.server import spare_what_stays
from devstack.postgres import EmbeddedPostgres

NAME = "inventory"

NODES = 5_000
_LIMIT_S = 120.0


@dataclass(frozen=True)
class Sync:
    """What one first sync took."""

    wall_s: float
    cpu_s: float
    """Of this process: reading, trimming, writing; not the API server's and not PostgreSQL's."""
    extra_mb: float
    """Peak of resident memory over what the process held before."""
    nodes: int


def run() -> list[Table]:
    with scratch_folder() as folder:
        server = EmbeddedPostgres(folder / "state", durable=False)
        server.start()
        try:
            cluster_id = uuid4()
            sync = asyncio.run(_sync(server, cluster_id, folder))
            make_key_files(folder / "keys")
            with create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            with serving(server, folder, port) as process:
                first_answer(port, "/clusters")
                pages = [
                    [title, *requested(port, path.format(cluster_id), process.pid)] for title, path in _PAGES.items()
                ]
        finally:
            server.stop()
    rows = [[f"{sync.nodes:,}", f"{sync.cpu_s:.2f}", f"{sync.wall_s:.2f}", f"{sync.extra_mb:.0f}"]]
    return [
        Table("First sync over TLS on loopback into PostgreSQL", ["nodes", "CPU s", "wall s", "extra MB"], rows),
        Table(f"Requests on {NODES:,} nodes", ["request", "p50 ms", "p95 ms", "CPU ms"], pages),
    ]


_PAGES = {
    "GET /clusters/{id}/nodes (50)": "/clusters/{}/nodes",
    "GET /clusters/{id}/nodes?limit=100": "/clusters/{}/nodes?limit=100",
    "GET /clusters/{id}/nodes?name_prefix=gpu-04": "/clusters/{}/nodes?name_prefix=gpu-04",
}


async def _sync(server: EmbeddedPostgres, cluster_id: UUID, folder: Path) -> Sync:
    url = make_url(server.url("postgres")).set(drivername="postgresql+asyncpg")
    await migrate(url)
    return await cold_sync(url, cluster_id, folder)


async def cold_sync(url: URL, cluster_id: UUID, folder: Path, *, nodes: int = NODES) -> Sync:
    """Read a cluster that nothing is known of. Leaves the rows in the migrated database at `url`."""
    database = Database(url)
    await _add(database, cluster_id)
    with heavy_cluster(folder, nodes) as kubeconfig:
        doors = Doors(playbooks=folder, workspace=folder / "work", max_tools=1, collections=None, path=None)
        store = InventoryStore(database, cluster_id, holder="benchmark", lease=timedelta(minutes=5))
        await store.take()
        keeper = InventoryKeeper(store, lambda: doors.open(kubeconfig), SystemClock(), pace=Pace())
        spare_what_stays()  # as the service does when it has started
        before, peak = _resident_mb(), 0.0
        begun, begun_cpu = time.perf_counter(), time.process_time()
        task = asyncio.create_task(keeper.run())
        while not await _is_complete(database, cluster_id):
            for _ in range(5):  # looking at the database costs more than looking at the process
                peak = max(peak, _resident_mb())
                await asyncio.sleep(0.05)
            if task.done() or time.perf_counter() - begun > _LIMIT_S:
                raise RuntimeError("the inventory was not completed")
        wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gc.unfreeze()
    async with database.reading() as session:
        count = await session.scalar(select(func.count()).select_from(InventoryNode))
    await database.close()
    return Sync(wall_s, cpu_s, max(0.0, peak - before), count or 0)


@contextlib.contextmanager
def heavy_cluster(folder: Path, nodes: int) -> Iterator[Kubeconfig]:
    """A process that answers with that many heavy nodes."""
    file = folder / "heavy.json"
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.subjects.heavy_nodes", str(file), str(nodes)])
    try:
        end = time.monotonic() + 60
        while not (file.exists() and file.read_text().endswith("}")):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the heavy cluster did not start")
            time.sleep(0.02)
        yield read_kubeconfig(file.read_text(), now=datetime.now(UTC), allow_local=True)
    finally:
        process.kill()  # its open watches would keep it from ending by itself
        process.wait(30)


async def _add(database: Database, cluster_id: UUID) -> None:
    async with database.writing() as session:
        session.add(
            Cluster(
                id=cluster_id,
                name="heavy",
                provider=ClusterProvider.ON_PREMISES,
                origin=ClusterOrigin.ADOPTED,
                status=ClusterStatus.READY,
            )
        )


async def _is_complete(database: Database, cluster_id: UUID) -> bool:
    async with database.reading() as session:
        state = await session.get(InventoryState, cluster_id)
    return state is not None and state.synced


def _resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6
