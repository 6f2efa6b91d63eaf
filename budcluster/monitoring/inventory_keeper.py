"""Keeps the inventory of one cluster: follows its objects, gathers what changed, writes it twice a second.

Heartbeats cost nothing: objects are compared trimmed. Nodes' documents are not held in memory, only a digest of each,
so 5,000 nodes take a few megabytes here.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from budcluster.cluster.access import NO_ACCESS
from budcluster.hardware.inventory_store import (
    Batch,
    InventoryStore,
    LeaseLost,
    PodKey,
    SeenPod,
    Standing,
    feature_bytes,
    seen_node,
)
from budcluster.hardware.reading.pods import is_over, read_pod
from budcluster.hardware.reading.trimming import digest_of, release_of, trim_feature, trim_node, trim_pod
from budcluster.hardware.survey import LIVE_PODS, NODE_FEATURES
from budcluster.kit.cancellation import innermost, raise_if_cancelled
from budcluster.kit.clock import Clock
from budcluster.kit.database import DatabaseUnavailable
from budcluster.kit.errors import DomainError
from budcluster.kit.pauses import Pauses
from budcluster.kube.client import ClusterClient
from budcluster.kube.door import Door
from budcluster.kube.follower import Follower
from budcluster.kube.ownership import LABEL_DEPLOYMENT
from budcluster.kube.resources import NODES, PODS
from budcluster.monitoring.pod_sums import PodSums, Request

log = structlog.get_logger(__name__)

Json = dict[str, Any]


@dataclass(frozen=True)
class Pace:
    """How often things happen, in seconds."""

    write_s: float = 0.5
    """Between two writes, if there is something to write."""
    renew_s: float = 5.0
    """Between two renewals of the lease, and of `as_of`."""
    pulse_s: float = 5.0
    """Between two questions whether the API server still answers."""
    pauses: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
    """Before each new try to reach a cluster."""


class InventoryKeeper:
    """One cluster's inventory, for as long as this replica holds its lease."""

    def __init__(
        self,
        store: InventoryStore,
        open_door: Callable[[], AbstractAsyncContextManager[Door]],
        clock: Clock,
        *,
        pace: Pace,
    ) -> None:
        self._store = store
        self._open_door = open_door
        self._clock = clock
        self._pace = pace
        self._pauses = Pauses(pace.pauses)
        self._batch = Batch()
        self._nodes: dict[str, bytes] = {}
        self._features: dict[str, bytes] = {}
        self._pods: dict[PodKey, bytes] = {}
        self._sums = PodSums()
        self._contact: datetime | None = None
        self._problem: str | None = None
        self._follow_features = Follower(NODE_FEATURES, self._see_feature, self._lose_feature, optional=True)
        self._follow_nodes = Follower(NODES, self._see_node, self._lose_node)
        self._follow_pods = Follower(PODS, self._see_pod, self._lose_pod, field_selector=LIVE_PODS)

    async def run(self) -> None:
        """Until the lease is lost or the task is cancelled. Raises DatabaseUnavailable at the start only."""
        known = await self._store.known()
        self._nodes, self._features, self._pods = known.nodes, known.features, known.pods
        self._sums.changed |= known.nodes.keys()
        self._follow_nodes.expect(self._nodes)
        self._follow_features.expect(self._features)
        self._follow_pods.expect(self._pods)
        following = asyncio.create_task(self._connect(), name="inventory-connect")
        try:
            await self._write_on(following)
        except LeaseLost:
            log.warning("inventory.lease_lost")
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    # -- reaching the cluster --------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        while True:
            try:
                # In a task of its own: a group whose child fails leaves its own task marked as cancelled (Python 3.11).
                await asyncio.create_task(self._visit())
            except* NO_ACCESS as group:
                error = innermost(group)
                self._problem = error.detail if isinstance(error, DomainError) else str(error)
                log.info("inventory.interrupted", error=type(error).__name__)
            # One that fails while it is cancelled tells of the failure only.
            raise_if_cancelled()
            # Not all at once when many clusters come back together.
            await asyncio.sleep(self._pauses.next_s() * random.uniform(0.7, 1.0))  # noqa: S311 - no secret

    async def _visit(self) -> None:
        async with self._open_door() as door:
            await self._follow(door.client)

    async def _follow(self, client: ClusterClient) -> None:
        # In this order a node is read once, with its feature.
        for follower in (self._follow_features, self._follow_nodes, self._follow_pods):
            await follower.list(client)
        # Where the watches can go on from where they were, nothing was asked of the cluster yet.
        await client.read("/version")
        self._heard()
        self._pauses.hold()
        async with asyncio.TaskGroup() as group:
            for follower in (self._follow_features, self._follow_nodes, self._follow_pods):
                group.create_task(follower.watch(client, self._heard))
            group.create_task(self._pulse(client))

    async def _pulse(self, client: ClusterClient) -> None:
        """A silent watch looks like a broken one; only an answer proves that nothing is missed."""
        while True:
            await asyncio.sleep(self._pace.pulse_s)
            await client.read("/version")
            self._heard()

    def _heard(self) -> None:
        self._contact = self._clock.now()
        self._problem = None

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _write_on(self, following: asyncio.Task[None]) -> None:
        """Raises LeaseLost, and what ended `following`."""
        loop = asyncio.get_running_loop()
        renewed_at, said = -self._pace.renew_s, (False, self._problem)
        while not following.done():
            news = (self._complete, self._problem)
            is_due = loop.time() - renewed_at >= self._pace.renew_s
            if (self._batch or self._has_loads or news != said or is_due) and await self._write():
                renewed_at, said = loop.time(), news
            await asyncio.sleep(self._pace.write_s)
        await following

    async def _write(self) -> bool:
        batch, self._batch = self._batch, Batch()
        # A sum of which pods are missing says too little.
        batch.loads = self._sums.take(self._nodes.keys()) if self._complete else {}
        standing = Standing(
            complete=self._complete,
            as_of=self._contact if self._complete else None,
            heard=self._contact is not None,
            problem=self._problem,
            cpu_requested=self._sums.cpu_cores,
            memory_requested_bytes=self._sums.memory_bytes,
        )
        try:
            await self._store.write(batch, standing, self._features)
        except DatabaseUnavailable:
            self._batch.put_back(batch)
            self._sums.changed |= batch.loads.keys()
            return False
        return True

    @property
    def _complete(self) -> bool:
        """Whether everything was read once, and when that was is known."""
        return self._contact is not None and all(
            one.listed for one in (self._follow_features, self._follow_nodes, self._follow_pods)
        )

    @property
    def _has_loads(self) -> bool:
        return self._complete and not self._sums.changed.isdisjoint(self._nodes)

    # -- what is seen ----------------------------------------------------------------------------------------------

    def _see_node(self, node: Json) -> str:
        name = str(node["metadata"]["name"])
        seen = seen_node(node, trim_node(node))
        if self._nodes.get(name) != seen.digest:
            if name not in self._nodes:
                self._sums.changed.add(name)
            self._nodes[name] = seen.digest
            self._batch.nodes[name] = seen
        return name

    def _lose_node(self, name: str) -> None:
        if self._nodes.pop(name, None) is not None:
            self._batch.nodes[name] = None

    def _see_feature(self, feature: Json) -> str:
        name = str(feature["metadata"]["name"])
        trimmed = feature_bytes(trim_feature(feature))
        if self._features.get(name) != trimmed:
            self._features[name] = trimmed
            self._batch.features.add(name)
        return name

    def _lose_feature(self, name: str) -> None:
        if self._features.pop(name, None) is not None:
            self._batch.features.add(name)

    def _see_pod(self, pod: Json) -> PodKey:
        key = (str(pod["metadata"].get("namespace") or ""), str(pod["metadata"]["name"]))
        if is_over(pod):
            self._lose_pod(key)
            return key
        trimmed = trim_pod(pod)
        self._sums.see(key, _request(pod, has_row=trimmed is not None))
        if trimmed is None:
            self._forget_gpu_pod(key)
            return key
        digest = digest_of(trimmed)
        if self._pods.get(key) != digest:
            self._pods[key] = digest
            self._batch.pods[key] = SeenPod(release_of(pod), trimmed, digest)
        return key

    def _lose_pod(self, key: PodKey) -> None:
        self._sums.see(key, None)
        self._forget_gpu_pod(key)

    def _forget_gpu_pod(self, key: PodKey) -> None:
        if self._pods.pop(key, None) is not None:
            self._batch.pods[key] = None


def _request(pod: Json, *, has_row: bool) -> Request:
    asked, labels = read_pod(pod).resources, pod["metadata"].get("labels") or {}
    node = None if has_row else (pod.get("spec") or {}).get("nodeName")
    cpu_milli, memory_bytes = round(asked.get("cpu", 0) * 1000), int(asked.get("memory", 0))
    return Request(cpu_milli, memory_bytes, node, labels.get(LABEL_DEPLOYMENT))
