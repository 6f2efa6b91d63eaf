"""Clusters as the monitoring finds them: simulated API servers behind real TLS, with rows and sealed credentials."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from budcluster.bootstrap import make_doors
from budcluster.cluster.access import ClusterAccess, kubeconfig_owner
from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.config import Settings
from budcluster.credentials.ring import KeyRing
from budcluster.credentials.vault import Vault
from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import Database
from budcluster.monitoring.inventory_keeper import Pace
from budcluster.monitoring.inventory_watch import InventoryWatch, WatchPace
from sandbox.kubernetes.server import KubernetesServer

Obj = dict[str, Any]
FAST = WatchPace(
    round_s=0.05, lease_s=20.0, keeper=Pace(write_s=0.02, renew_s=0.1, pulse_s=0.1, pauses=(0.05, 0.1, 0.2))
)


class Fleet:
    """Makes rows of clusters and the things that look at them."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.vault = Vault(KeyRing.from_settings(settings), database)
        self.access = ClusterAccess(database, self.vault, make_doors(settings), clock=SystemClock(), allow_local=True)

    async def add(self, server: KubernetesServer, *, name: str = "lab", token: str | None = None) -> UUID:
        """A READY cluster whose stored credential opens this server."""
        cluster_id = uuid4()
        kubeconfig = server.kubeconfig(token=token).encode()
        async with self.database.writing() as session:
            session.add(
                Cluster(
                    id=cluster_id,
                    name=name,
                    provider=ClusterProvider.ON_PREMISES,
                    origin=ClusterOrigin.ADOPTED,
                    status=ClusterStatus.READY,
                    kubeconfig_encrypted=self.vault.seal(kubeconfig, kubeconfig_owner(cluster_id)),
                )
            )
        return cluster_id

    def watch(self, pace: WatchPace = FAST, *, clock: Clock | None = None) -> InventoryWatch:
        return InventoryWatch(self.database, self.access, clock or SystemClock(), pace=pace)

    @asynccontextmanager
    async def watching(self, pace: WatchPace = FAST, *, clock: Clock | None = None) -> AsyncIterator[InventoryWatch]:
        """A replica that keeps inventories within this block."""
        watch = self.watch(pace, clock=clock)
        task = asyncio.create_task(watch.run())
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def settings_in(settings: Settings, folder: Path) -> Settings:
    """The settings with a workspace of the test's own."""
    kubernetes = settings.kubernetes.model_copy(update={"workspace": folder})
    return settings.model_copy(update={"kubernetes": kubernetes})


def put(server: KubernetesServer, obj: Obj) -> None:
    """Write an object and its status, as the agents of a node would."""

    def write() -> None:
        made = server.cluster.store.create(copy.deepcopy(obj))
        if "status" in obj:
            place = (made["kind"], made["metadata"].get("namespace"), made["metadata"]["name"])
            server.cluster.store.update(*place, lambda one: one.update(status=obj["status"]), subresource="status")

    server.call(write)


def put_node(server: KubernetesServer, node: Obj, *, name: str | None = None) -> str:
    """A node from `tests.hardware.nodes`, under its own or another name."""
    name = name or node["metadata"]["name"]
    put(server, {"apiVersion": "v1", "kind": "Node", **node, "metadata": {**node["metadata"], "name": name}})
    return name


def put_pod(server: KubernetesServer, pod: Obj, *, node: str) -> None:
    """A pod from `tests.hardware.nodes`, bound to a node, in the namespace `default`."""
    containers = [{"image": "vllm", **container} for container in pod["spec"]["containers"]]
    spec = {**pod["spec"], "nodeName": node, "containers": containers}
    metadata = {**pod["metadata"], "namespace": "default"}
    put(server, {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": metadata, "spec": spec})


def change(server: KubernetesServer, kind: str, name: str, to: Callable[[Obj], None], *, status: bool = False) -> None:
    """Change an object, as its controller would."""
    namespace = "default" if kind == "Pod" else None
    server.call(
        lambda: server.cluster.store.update(kind, namespace, name, to, subresource="status" if status else None)
    )


def remove(server: KubernetesServer, kind: str, name: str) -> None:
    """Delete an object at once."""
    namespace = "default" if kind == "Pod" else None
    server.call(lambda: server.cluster.store.delete(kind, namespace, name, grace_seconds=0))
