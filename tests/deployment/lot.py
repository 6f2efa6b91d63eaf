"""A cluster whose inventory is known, and deployments that stand in it: rows only, made as the watch makes them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
from sqlalchemy import delete, update

from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.deployment.models import Deployment, DeploymentRevision, DeploymentStatus
from budcluster.hardware.models import InventoryGpuPod, InventoryNode, InventoryState
from budcluster.hardware.reading.reader import read_cluster
from budcluster.hardware.reading.trimming import digest_of, trim_node, trim_pod
from budcluster.kit.clock import SystemClock
from budcluster.kit.database import Database
from budcluster.operations.models import Claim, Operation, OperationStatus, OperationStep, StepStatus
from tests.deployment.models import LLAMA_8B
from tests.hardware import nodes

NAMESPACE = "budcluster-models"
SMALL = LLAMA_8B | {"num_hidden_layers": 4}
Json = dict[str, Any]


class Lot:
    """Somebody who deploys on one cluster and sees each deployment come up at once."""

    def __init__(self, client: httpx.AsyncClient, database: Database) -> None:
        self.client = client
        self.database = database
        self.cluster_id = uuid4()

    async def prepare(self, machines: Sequence[nodes.Node]) -> None:
        """The cluster and its inventory."""
        for number, machine in enumerate(machines):
            machine["metadata"]["name"] = f"node-{number}"
        profile = read_cluster(list(machines))
        async with self.database.writing() as session:
            session.add(
                Cluster(
                    id=self.cluster_id,
                    name=f"lab-{self.cluster_id.hex[:6]}",
                    provider=ClusterProvider.ON_PREMISES,
                    origin=ClusterOrigin.ADOPTED,
                    status=ClusterStatus.READY,
                    hardware_profile=orjson.loads(orjson.dumps(profile)),
                )
            )
            await session.flush()
            session.add(InventoryState(cluster_id=self.cluster_id, synced=True, as_of=SystemClock().now()))
            session.add_all(
                InventoryNode(
                    cluster_id=self.cluster_id, name=seen.name, uid=uuid4(), created_at=SystemClock().now(),
                    document=trim_node(machine), digest=digest_of(trim_node(machine)), ready=True,
                    schedulable=seen.schedulable, pressed=False,
                    cpu_cores=seen.cpu.allocatable_cores, memory_bytes=seen.allocatable_memory_bytes,
                    gpu_count=len(seen.gpus), gpus_healthy=len(seen.gpus),
                    cpu_requested=0.0, memory_requested_bytes=0, copies={},
                )
                for machine, seen in zip(machines, profile.nodes, strict=True)
            )  # fmt: skip

    async def ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        """A request about a deployment."""
        params = {"force": True} if body.pop("force", False) else {}
        return await self.client.request(method, path, json=body or None, params=params)

    async def create(self, **config: Any) -> httpx.Response:
        """Ask for a deployment of a small model."""
        body = {"cluster_id": str(self.cluster_id), "model": "org/model", "config": {"model_config": SMALL, **config}}
        return await self.client.post("/deployments", json=body)

    async def served(self, *, places: Sequence[str] = (), **config: Any) -> str:
        """Path of a deployment that serves, its copies on these nodes."""
        answer = await self.create(**config)
        assert answer.status_code == 202, answer.text
        await self.finish(answer.json()["operation_id"])
        await self.stand(answer.json()["id"], places)
        return f"/deployments/{answer.json()['id']}"

    async def finish(self, operation_id: str) -> None:
        """The operation ends well, and what it wanted serves."""
        async with self.database.writing() as session:
            operation = await session.get(Operation, UUID(operation_id))
            assert operation is not None
            operation.status, operation.claim = OperationStatus.SUCCEEDED, Claim.NONE
            deployment = await session.get(Deployment, operation.subject_id)
            assert deployment is not None
            deployment.status = DeploymentStatus.RUNNING if deployment.replicas_desired else DeploymentStatus.PARKED
            deployment.endpoints = [{"kind": "cluster", "url": "http://x/v1"}]
            await session.execute(
                update(DeploymentRevision)
                .where(DeploymentRevision.deployment_id == deployment.id)
                .values(served_at=SystemClock().now())
            )

    async def asked_for_a_prompt(self, operation_id: str) -> None:
        """The operation has brought all copies up, and is about to see whether they answer."""
        async with self.database.writing() as session:
            step = await session.get(OperationStep, (UUID(operation_id), "smoke_test"))
            assert step is not None
            step.status = StepStatus.RUNNING

    async def stand(self, deployment_id: str, places: Sequence[str]) -> None:
        """The copies of the present revision, one on each of these nodes, instead of those that stood."""
        values = await self.values(deployment_id)
        async with self.database.writing() as session:
            deployment = await session.get(Deployment, UUID(deployment_id.rpartition("/")[2]))
            assert deployment is not None
            release = deployment.helm_release
            await session.execute(delete(InventoryGpuPod).where(InventoryGpuPod.release == release))
            for number, place in enumerate(places):
                pod = {
                    "metadata": {"namespace": NAMESPACE, "name": f"{release}-{number}", "uid": str(uuid4())},
                    "spec": {"nodeName": place, "containers": [{"resources": {"limits": _texts(values)}}]},
                    "status": {"phase": "Running"},
                }
                session.add(
                    InventoryGpuPod(
                        cluster_id=self.cluster_id, namespace=NAMESPACE, name=f"{release}-{number}", uid=str(uuid4()),
                        node=place, phase="Running", release=release, document=trim_pod(pod), digest=digest_of(pod),
                    )
                )  # fmt: skip

    async def values(self, deployment_id: str) -> Json:
        """Of the chart, for the revision that is meant to run."""
        async with self.database.reading() as session:
            deployment = await session.get(Deployment, UUID(deployment_id.rpartition("/")[2]))
            assert deployment is not None
            revision = await session.get(DeploymentRevision, (deployment.id, deployment.revision))
            assert revision is not None
            return revision.values


def _texts(values: Json) -> dict[str, str]:
    return {name: str(amount) for name, amount in values["resources"]["limits"].items()}
