"""Deployments as a user makes and looks at them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import until
from tests.fixtures.cluster import Onboarder

SMALL = {
    "num_hidden_layers": 28, "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 40960, "vocab_size": 151_936, "intermediate_size": 3072,
}  # fmt: skip


class Operator:
    """Deploys on one onboarded cluster, as a user does."""

    def __init__(self, user: Onboarder, server: KubernetesServer, cluster_id: str) -> None:
        self.user = user
        self.server = server
        self.cluster_id = cluster_id

    async def begin(
        self, name: str, *, model: str = "Qwen/Qwen3-0.6B", runtime: str = "auto", **config: Any
    ) -> dict[str, Any]:
        """Ask for a deployment; the answer."""
        body = {
            "cluster_id": self.cluster_id,
            "name": name,
            "model": model,
            "runtime": runtime,
            "config": {"model_config": SMALL, **config},
        }
        answer = await self.user.client.post("/deployments", json=body)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def deployed(self, name: str, **config: Any) -> str:
        """Id of a deployment that serves."""
        begun = await self.begin(name, **config)
        operation = await self.user.ended(begun["operation_id"])
        assert operation["status"] == "SUCCEEDED", operation
        return str(begun["id"])

    async def fits(self, gpus: int = 1) -> bool:
        """Whether a replica with so many GPUs would be accepted: the inventory sees a moment later what is free."""
        config = {"model_config": SMALL, "tensor_parallel_size": gpus}
        body = {"cluster_id": self.cluster_id, "model": "Qwen/Qwen3-0.6B", "config": config}
        answer = await self.user.client.post("/deployments?dry_run=true", json=body)
        return bool(answer.json()["fit"]["verdict"] == "yes")

    async def done(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The operation of a request, once it has ended."""
        answer = await self.user.client.request(method, path, json=body)
        assert answer.status_code == 202, answer.text
        return await self.user.ended(answer.json()["operation_id"])

    async def is_taken_back(self, operation_id: str, step: str) -> bool:
        """Whether the operation takes the step back, or has ended already."""
        operation = (await self.user.client.get(f"/operations/{operation_id}")).json()
        detail = next(one["detail"] for one in operation["steps"] if one["name"] == step)
        return detail == "Being undone" or operation["status"] in {"SUCCEEDED", "FAILED", "CANCELLED"}

    async def show(self, deployment_id: str) -> dict[str, Any]:
        """The deployment."""
        return dict((await self.user.client.get(f"/deployments/{deployment_id}")).json())

    async def labelled(self, deployment_id: str) -> list[str]:
        """Kinds of everything in the cluster that bears the deployment's label."""
        kinds = ("Deployment", "ReplicaSet", "Pod", "Service", "Secret", "ConfigMap", "PersistentVolumeClaim")

        def look() -> list[str]:
            store = self.server.cluster.store
            return [
                kind
                for kind in kinds
                for found in store.list(kind)
                if (found["metadata"].get("labels") or {}).get("budcluster.io/deployment-id") == deployment_id
            ]

        return await asyncio.to_thread(self.server.call, look)

    async def gate(self, model: str, *, gated: bool = True) -> None:
        """Let the hub ask for access that no token has, or no longer."""
        simulation = self.server.cluster.simulation
        assert simulation is not None
        await asyncio.to_thread(self.server.call, lambda: simulation.inject("gated_model", model=model, gated=gated))

    @asynccontextmanager
    async def no_new_pods(self) -> AsyncIterator[None]:
        """No node takes a pod within this block: what is to start waits. The service hears of the end a bit later."""

        def cordon(*, closed: bool) -> None:
            store = self.server.cluster.store
            for node in store.list("Node"):
                store.update(
                    "Node", None, node["metadata"]["name"], lambda one: one["spec"].update(unschedulable=closed)
                )

        await asyncio.to_thread(self.server.call, lambda: cordon(closed=True))
        try:
            yield
        finally:
            await asyncio.to_thread(self.server.call, lambda: cordon(closed=False))

    async def until_open(self) -> None:
        """Wait until the service, too, knows that nodes take pods again: a cordon of before refuses what is asked."""
        await until(self.fits, bool, deadline_s=120)

    async def releases(self) -> list[tuple[str, str]]:
        """Number and status of every revision that Helm keeps of deployments on this cluster."""

        def look() -> list[tuple[str, str]]:
            records = [
                one["metadata"]["labels"]
                for one in self.server.cluster.store.list("Secret")
                if one.get("type") == "helm.sh/release.v1" and one["metadata"]["labels"]["name"].startswith("bud-")
            ]
            return sorted((labels["version"], labels["status"]) for labels in records)

        return await asyncio.to_thread(self.server.call, look)
