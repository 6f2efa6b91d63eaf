"""Log streaming: throughput and memory. Status: from a pod's event to the deployment's row."""

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
from sqlalchemy import select
from sqlalchemy.engine import make_url

from benchmarks.measure import Table
from benchmarks.scratch import scratch_folder
from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.credentials.keys import RSA_NAME, SYMMETRIC_NAME, make_key_files
from budcluster.credentials.ring import KeyRing
from budcluster.credentials.vault import Vault
from budcluster.deployment.logs.attempts import Attempts
from budcluster.deployment.logs.cursor import Cursor
from budcluster.deployment.logs.reading import LogReading, Wanted
from budcluster.deployment.logs.streams import Batch, LogStream, as_events, as_text
from budcluster.deployment.logs.window import Window
from budcluster.deployment.models import Deployment, DeploymentStatus, RuntimeType
from budcluster.deployment.watching.cluster_eye import ClusterEye
from budcluster.deployment.watching.standing import Standings
from budcluster.deployment.watching.status import Damping
from budcluster.kit.clock import SystemClock
from budcluster.kit.database import Database
from budcluster.kube.client import ClusterClient
from budcluster.kube.kubeconfig import read_kubeconfig
from budcluster.kube.ownership import LABEL_DEPLOYMENT
from budcluster.kube.resources import NAMESPACES, PODS
from budcluster.migrations import migrate
from devstack.postgres import EmbeddedPostgres

NAME = "logs"

MIB = 1024
CHANGES = 20
NAMESPACE = "budcluster-models"
_START_LIMIT_S = 60.0


def run() -> list[Table]:
    with scratch_folder() as folder, _flooding(folder) as kubeconfig:
        rows = [asyncio.run(_streamed(kubeconfig, name, write)) for name, write in _WRITERS.items()]
        latency = asyncio.run(_with_database(folder, kubeconfig))
    columns = ("answer", "MiB", "seconds", "MiB/s", "lines/s", "resident MiB before", "highest")
    return [
        Table(f"One container's log of {MIB:,} MiB, masked, over TLS on loopback", columns, rows),
        Table("From a pod's readiness to the deployment's row", ("changes", "median ms", "slowest ms"), [latency]),
    ]


_WRITERS: dict[str, Callable[[LogStream], AsyncGenerator[bytes, None]]] = {
    "plain text": lambda stream: as_text(stream, timestamps=False),
    "server-sent events": lambda stream: as_events(stream, after=Cursor()),
}


@contextlib.contextmanager
def _flooding(folder: Path) -> Iterator[str]:
    path = folder / "kubeconfig"
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.log_flood", str(path), str(MIB)])
    try:
        end = time.monotonic() + _START_LIMIT_S
        while not (path.exists() and path.stat().st_size):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the sandbox Kubernetes did not start")
            time.sleep(0.05)
        yield path.read_text()
    finally:
        process.terminate()
        process.wait()


def _client(kubeconfig: str) -> ClusterClient:
    return ClusterClient(read_kubeconfig(kubeconfig, now=datetime.now(UTC), allow_local=True))


def _pod(deployment_id: UUID, **spec: Any) -> dict[str, Any]:
    metadata = {"name": f"llm-{deployment_id.hex[:8]}", "labels": {LABEL_DEPLOYMENT: str(deployment_id)}}
    containers = [{"name": "runtime", "image": "nginx:1.29"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


async def _namespace(client: ClusterClient) -> None:
    await client.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})


async def _streamed(
    kubeconfig: str, name: str, write: Callable[[LogStream], AsyncGenerator[bytes, None]]
) -> tuple[str, ...]:
    deployment_id = uuid4()
    async with _client(kubeconfig) as client:
        await _namespace(client)
        made = await client.create(PODS, _pod(deployment_id), namespace=NAMESPACE)
        while (made.get("status") or {}).get("phase") != "Running":
            await asyncio.sleep(0.1)
            made = await client.get(PODS, made["metadata"]["name"], namespace=NAMESPACE)
        stream = LogStream(_batches(client, deployment_id, Window()), several=False)
        before = highest = _resident_mib()
        size = lines = 0
        began = time.perf_counter()
        async for part in write(stream):
            size += len(part)
            lines += part.count(b"Received request")
            highest = max(highest, _resident_mib())
        took = time.perf_counter() - began
    mib = size / 2**20
    rates = (f"{mib:,.0f}", f"{took:.1f}", f"{mib / took:.1f}", f"{lines / took:,.0f}")
    return (name, *rates, f"{before:.0f}", f"{highest:.0f}")


async def _batches(client: ClusterClient, deployment_id: UUID, window: Window) -> AsyncGenerator[Batch, None]:
    selector = f"{LABEL_DEPLOYMENT}={deployment_id}"
    reading = LogReading(client, NAMESPACE, selector, Wanted(), after=Cursor(), window=window)
    await reading.prepare()
    task = asyncio.create_task(reading.run())
    while batch := await window.take():
        yield batch
    await task


def _resident_mib() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


async def _with_database(folder: Path, kubeconfig: str) -> tuple[str, str, str]:
    server = EmbeddedPostgres(folder / "state", durable=False)
    await asyncio.to_thread(server.start)
    try:
        url = make_url(server.url("postgres")).set(drivername="postgresql+asyncpg")
        await migrate(url)
        database = Database(url)
        try:
            return await _latency(folder, database, kubeconfig)
        finally:
            await database.close()
    finally:
        await asyncio.to_thread(server.stop)


async def _latency(folder: Path, database: Database, kubeconfig: str) -> tuple[str, str, str]:
    cluster_id, deployment_id = uuid4(), uuid4()
    await _rows(database, cluster_id, deployment_id)
    make_key_files(folder)
    vault = Vault(KeyRing(folder / RSA_NAME, folder / SYMMETRIC_NAME), database)
    async with _client(kubeconfig) as client:

        @asynccontextmanager
        async def door() -> AsyncIterator[Any]:
            yield _ClientOnly(client)

        standings = Standings(database, cluster_id, SystemClock(), Damping())
        eye = ClusterEye(door, standings, Attempts(database, vault), frozenset({NAMESPACE}))
        task = asyncio.create_task(eye.run())
        # Nobody schedules it, so that nobody but this benchmark writes its status.
        pod = await client.create(PODS, _pod(deployment_id, schedulerName="nobody"), namespace=NAMESPACE)
        taken = [await _change(client, database, pod, deployment_id, ready=n % 2 == 0) for n in range(CHANGES)]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return str(CHANGES), f"{statistics.median(taken) * 1000:.0f}", f"{max(taken) * 1000:.0f}"


class _ClientOnly:
    """What a watch needs of a `Door`."""

    def __init__(self, client: ClusterClient) -> None:
        self.client = client


async def _change(
    client: ClusterClient, database: Database, pod: dict[str, Any], deployment_id: UUID, *, ready: bool
) -> float:
    conditions = [{"type": "Ready", "status": str(ready)}]
    name = pod["metadata"]["name"]
    await client.patch(PODS, name, {"status": {"conditions": conditions}}, namespace=NAMESPACE, subresource="status")
    began = time.perf_counter()
    while True:
        async with database.reading() as session:
            copies = await session.scalar(select(Deployment.replicas_ready).where(Deployment.id == deployment_id))
        if copies == int(ready):
            return time.perf_counter() - began
        await asyncio.sleep(0.005)


async def _rows(database: Database, cluster_id: UUID, deployment_id: UUID) -> None:
    async with database.writing() as session:
        session.add(
            Cluster(
                id=cluster_id, name="bench", provider=ClusterProvider.ON_PREMISES, origin=ClusterOrigin.ADOPTED,
                status=ClusterStatus.READY,
            )
        )  # fmt: skip
        await session.flush()
        session.add(
            Deployment(
                id=deployment_id, cluster_id=cluster_id, name="llm", model="Qwen/Qwen3-0.6B", runtime=RuntimeType.VLLM,
                status=DeploymentStatus.DEPLOYING, namespace=NAMESPACE, helm_release="bud-llm",
            )
        )  # fmt: skip
