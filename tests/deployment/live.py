"""A simulated cluster with a deployment's objects, made by hand, and the row that knows of it."""

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID, uuid4

from budcluster.bootstrap import make_doors
from budcluster.cluster.access import ClusterAccess, kubeconfig_owner
from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.config import Settings
from budcluster.credentials.ring import KeyRing
from budcluster.credentials.vault import Vault
from budcluster.deployment.models import Deployment, DeploymentRevision, DeploymentStatus, RuntimeType
from budcluster.kit.clock import SystemClock
from budcluster.kit.database import Database
from budcluster.kube.ownership import LABEL_DEPLOYMENT
from sandbox.kubernetes.server import KubernetesServer

T = TypeVar("T")
Obj = dict[str, Any]
NAMESPACE = "budcluster-models"
DEADLINE_S = 60.0
VLLM = "vllm/vllm-openai:v0.33.0"


class Live:
    """Rows of one cluster and its deployments; objects in the simulated cluster behind it."""

    def __init__(self, settings: Settings, database: Database, server: KubernetesServer) -> None:
        self.settings = settings
        self.database = database
        self.server = server
        self.vault = Vault(KeyRing.from_settings(settings), database)
        self.access = ClusterAccess(database, self.vault, make_doors(settings), clock=SystemClock(), allow_local=True)
        self.cluster_id = uuid4()

    async def prepare(self) -> None:
        """The cluster's row, and the namespace of models."""
        await self.prepare_row()
        self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})

    async def prepare_row(self) -> None:
        """A READY cluster whose stored credential opens the server."""
        kubeconfig = self.server.kubeconfig().encode()
        async with self.database.writing() as session:
            session.add(
                Cluster(
                    id=self.cluster_id,
                    name=f"lab-{self.cluster_id.hex[:6]}",
                    provider=ClusterProvider.ON_PREMISES,
                    origin=ClusterOrigin.ADOPTED,
                    status=ClusterStatus.READY,
                    kubeconfig_encrypted=self.vault.seal(kubeconfig, kubeconfig_owner(self.cluster_id)),
                )
            )

    async def add(self, *, status: DeploymentStatus = DeploymentStatus.RUNNING, replicas: int = 1) -> UUID:
        """A deployment's row."""
        deployment_id = uuid4()
        async with self.database.writing() as session:
            session.add(
                Deployment(
                    id=deployment_id,
                    cluster_id=self.cluster_id,
                    name=f"llm-{deployment_id.hex[:8]}",
                    model="Qwen/Qwen3-0.6B",
                    runtime=RuntimeType.VLLM,
                    status=status,
                    namespace=NAMESPACE,
                    helm_release=f"bud-llm-{deployment_id.hex[:8]}",
                    revision=1,
                    replicas_desired=replicas,
                )
            )
            await session.flush()
            session.add(
                DeploymentRevision(
                    deployment_id=deployment_id,
                    number=1,
                    config={},
                    values={"ingress": {"enabled": False}},
                    actor="test",
                    reason="first deployment",
                )
            )
        return deployment_id

    async def row(self, deployment_id: UUID) -> Deployment:
        """The deployment as stored."""
        async with self.database.reading() as session:
            found = await session.get(Deployment, deployment_id)
            assert found is not None
            return found

    def put(self, obj: Obj) -> None:
        """Make an object in the cluster."""
        self.server.call(lambda: self.server.cluster.store.create(copy.deepcopy(obj)))

    def remove(self, kind: str, name: str) -> None:
        """Delete an object at once."""
        self.server.call(lambda: self.server.cluster.store.delete(kind, NAMESPACE, name, grace_seconds=0))

    def change(self, kind: str, name: str, to: Callable[[Obj], None]) -> None:
        """Change an object as somebody with access to the cluster would."""
        self.server.call(lambda: self.server.cluster.store.update(kind, NAMESPACE, name, to))

    def pods(self, deployment_id: UUID) -> list[Obj]:
        """The deployment's pods."""
        found = self.server.call(lambda: copy.deepcopy(self.server.cluster.store.list("Pod", NAMESPACE)))
        return [pod for pod in found if pod["metadata"]["labels"].get(LABEL_DEPLOYMENT) == str(deployment_id)]


def chatty(name: str, script: str) -> Obj:
    """A container that runs a little shell script."""
    return {"name": name, "image": "busybox:1.37", "command": ["sh", "-c", script]}


def runtime(
    args: list[str], *, image: str = VLLM, gpus: int = 1, memory: str = "32Gi", shm: bool = True, env: Obj | None = None
) -> Obj:
    """A container as the chart makes it."""
    limits = {"memory": memory, **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {
        "name": "runtime",
        "image": image,
        "args": args,
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "ports": [{"containerPort": 8000}],
        "resources": {"limits": limits},
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 5},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}] if shm else [],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def pod(deployment_id: UUID, name: str, *containers: Obj, **spec: Any) -> Obj:
    """A pod with the chart's label."""
    labels = {LABEL_DEPLOYMENT: str(deployment_id)}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": list(containers), **spec}}


def service(deployment: Deployment) -> Obj:
    """The Service of a release."""
    labels = {LABEL_DEPLOYMENT: str(deployment.id)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": deployment.helm_release, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"app.kubernetes.io/instance": deployment.helm_release},
            "ports": [{"name": "http", "port": 80}],
        },
    }


def workload(deployment: Deployment, *containers: Obj, replicas: int | None = None) -> Obj:
    """The Deployment object of a release."""
    labels = {LABEL_DEPLOYMENT: str(deployment.id), "app.kubernetes.io/instance": deployment.helm_release}
    pod_spec = {
        "containers": list(containers),
        "enableServiceLinks": False,
        "tolerations": [{"operator": "Exists"}],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment.helm_release, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": deployment.replicas_desired if replicas is None else replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/instance": deployment.helm_release}},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec},
        },
    }


async def until(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool], *, deadline_s: float = DEADLINE_S) -> T:
    """Look again and again until it holds; what was seen last goes into the failure."""
    end = time.monotonic() + deadline_s
    while True:
        seen = await look()
        if holds(seen):
            return seen
        assert time.monotonic() < end, f"after {deadline_s} s still: {seen!r}"
        await asyncio.sleep(0.02)
