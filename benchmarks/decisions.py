"""What it costs to decide about one deployment: by the size of the cluster, and by how many deployments it has.

The request is taken from the turn to the commit, without HTTP, a hub or tools. Half of the deployments that were
accepted before stand in the inventory, the others wait.
"""

import asyncio
import logging
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import structlog
from sqlalchemy import select

from benchmarks.deploy import MODEL, MODEL_CONFIG
from benchmarks.live_service import database_in, settings_for
from benchmarks.measure import Table
from benchmarks.subjects.heavy_nodes import node
from budcluster.bootstrap import Service, make_service
from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.deployment.models import Deployment
from budcluster.deployment.schemas import DeploymentRequest
from budcluster.deployment.work import DeploymentWork
from budcluster.hardware.inventory_store import Batch, InventoryStore, Load, SeenPod, Standing, seen_node
from budcluster.hardware.reading.trimming import digest_of, trim_node, trim_pod
from budcluster.kit.database import Database
from budcluster.migrations import migrate

NAME = "decisions"

NODES = (25, 250, 1_000)
DEPLOYMENTS = (0, 50, 200)
_ROUNDS = 20
_LEASE = timedelta(minutes=10)


@dataclass(frozen=True)
class Cost:
    """Medians of one decision, in milliseconds; the processor's time is this process's, not PostgreSQL's."""

    wall_ms: float
    cpu_ms: float


def run() -> list[Table]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="budcluster-bench-") as name:
        folder = Path(name)
        # PostgreSQL's unprivileged user must be able to enter.
        folder.chmod(0o711)
        rows = asyncio.run(_measure(folder))
    return [Table("One decision about a deployment", ("nodes", "deployments", "wall ms", "CPU ms"), rows)]


async def _measure(folder: Path) -> list[tuple[str, ...]]:
    rows = []
    async with database_in(folder) as url:
        service = make_service(settings_for(url, folder))
        await migrate(service.edge.settings.sqlalchemy_url)
        for nodes in NODES:
            lot = _Lot(service, nodes)
            await lot.prepare()
            for deployments in DEPLOYMENTS:
                await lot.fill(deployments)
                cost = await lot.cost()
                rows.append((f"{nodes:,}", str(deployments), f"{cost.wall_ms:.1f}", f"{cost.cpu_ms:.1f}"))
        await service.edge.database.close()
    return rows


class _Lot:
    """A cluster whose inventory is known, and deployments on it."""

    def __init__(self, service: Service, nodes: int) -> None:
        self._database: Database = service.edge.database
        self._work = service.edge.service(DeploymentWork)
        self._namespace = service.edge.settings.deployments.namespace
        self._nodes = nodes
        self._cluster_id = uuid4()
        self._store = InventoryStore(self._database, self._cluster_id, holder="benchmark", lease=_LEASE)

    async def prepare(self) -> None:
        async with self._database.writing() as session:
            session.add(
                Cluster(
                    id=self._cluster_id, name=f"bench-{self._nodes}", provider=ClusterProvider.ON_PREMISES,
                    origin=ClusterOrigin.ADOPTED, status=ClusterStatus.READY, hardware_profile={},
                )
            )  # fmt: skip
        await self._store.take()
        made = [node(number) for number in range(self._nodes)]
        nodes = {one["metadata"]["name"]: seen_node(one, trim_node(one)) for one in made}
        # As in a real cluster, pods without GPUs ask something else of each node.
        loads = {name: Load(number % 7 / 4, number % 11 * 2**28) for number, name in enumerate(nodes)}
        await self._write(Batch(nodes=nodes, loads=loads))

    async def fill(self, deployments: int) -> None:
        """Until there are so many; every other one gets a pod."""
        while await self._count() < deployments:
            await self._accept()
        await self._write(Batch(pods=dict([self._pod(row) for row in (await self._rows())[::2]])))

    async def cost(self) -> Cost:
        """The medians, from decisions that are taken back."""
        spent = []
        for _ in range(_ROUNDS):
            wall, cpu = time.perf_counter(), time.process_time()
            await self._accept(keep=False)
            spent.append((time.perf_counter() - wall, time.process_time() - cpu))
        walls, cpus = zip(*spent, strict=True)
        return Cost(1000 * statistics.median(walls), 1000 * statistics.median(cpus))

    async def _accept(self, *, keep: bool = True) -> None:
        named = {"cluster_id": str(self._cluster_id), "name": f"bench-{uuid4().hex}", "model": MODEL}
        body = {**named, "config": {"model_config": MODEL_CONFIG}}
        request = DeploymentRequest.model_validate(body)
        known = await self._work.describe(request, actor="benchmark")
        async with self._work.turns.on(self._cluster_id), self._database.writing() as session:
            await self._work.create(session, request, known, force=False, actor="benchmark")
            if not keep:
                await session.rollback()

    async def _rows(self) -> list[Deployment]:
        mine = select(Deployment).where(Deployment.cluster_id == self._cluster_id).order_by(Deployment.created_at)
        async with self._database.reading() as session:
            return list(await session.scalars(mine))

    async def _count(self) -> int:
        return len(await self._rows())

    async def _write(self, batch: Batch) -> None:
        await self._store.write(batch, Standing(True, None, True, None, 0.0, 0), {})

    def _pod(self, row: Deployment) -> tuple[tuple[str, str], SeenPod]:
        metadata = {"namespace": self._namespace, "name": f"{row.helm_release}-0", "uid": str(uuid4())}
        limits = {"nvidia.com/gpu": "1"}
        name = f"gpu-{row.id.int % self._nodes:05}"
        spec = {"nodeName": name, "containers": [{"name": "runtime", "resources": {"limits": limits}}]}
        trimmed = trim_pod({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})
        assert trimmed is not None
        return (self._namespace, metadata["name"]), SeenPod(row.helm_release, trimmed, digest_of(trimmed))
