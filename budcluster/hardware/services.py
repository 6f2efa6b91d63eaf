"""Answers questions about the hardware of a cluster, from what the service has stored."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import select

from budcluster.api.paging import Rows
from budcluster.hardware import inventory
from budcluster.hardware.errors import HardwareNotDetected
from budcluster.hardware.inventory import Freshness, LiveSum, PlacedGpu
from budcluster.hardware.models import ClusterAddon
from budcluster.hardware.reading.profile import NodeProfile
from budcluster.hardware.schemas import GpuQuery, NodeQuery
from budcluster.kit.database import ReadSession


@dataclass(frozen=True, slots=True)
class Detected:
    """What was found when the hardware was last detected."""

    at: datetime
    summary: dict[str, Any]
    """A `ClusterSum` as JSON."""
    gaps: list[str]


class ClusterDirectory(Protocol):
    """What this package must know of clusters; the cluster feature, which stands above, implements it."""

    async def require(self, session: ReadSession, cluster_id: UUID) -> None:
        """Raises NotFound when there is no such cluster."""

    async def detected(self, session: ReadSession, cluster_id: UUID) -> Detected | None:
        """The stored profile's sum; None before the hardware was detected. Raises NotFound."""


class _NodesOf(NodeQuery):
    cluster_id: UUID


class _GpusOf(GpuQuery):
    cluster_id: UUID


class HardwareService:
    """Looking at hardware. Every method raises NotFound when there is no such cluster."""

    def __init__(self, clusters: ClusterDirectory) -> None:
        self._clusters = clusters

    async def nodes(
        self, session: ReadSession, cluster_id: UUID, query: NodeQuery
    ) -> tuple[Rows[NodeProfile], Freshness]:
        """One page of nodes. Raises InvalidCursor."""
        await self._clusters.require(session, cluster_id)
        # The cluster is one of the filters: a cursor of another cluster's list is foreign here.
        own = _NodesOf(**query.model_dump(), cluster_id=cluster_id)
        rows = await inventory.nodes_page(session, cluster_id, own, prefix=query.name_prefix)
        return rows, await inventory.freshness(session, cluster_id)

    async def gpus(self, session: ReadSession, cluster_id: UUID, query: GpuQuery) -> tuple[Rows[PlacedGpu], Freshness]:
        """One page of devices. Raises InvalidCursor."""
        await self._clusters.require(session, cluster_id)
        rows = await inventory.gpus_page(session, cluster_id, _GpusOf(**query.model_dump(), cluster_id=cluster_id))
        return rows, await inventory.freshness(session, cluster_id)

    async def hardware(self, session: ReadSession, cluster_id: UUID) -> tuple[Detected, LiveSum | None, Freshness]:
        """What was detected, and what is there now. Raises HardwareNotDetected."""
        detected = await self._clusters.detected(session, cluster_id)
        if detected is None:
            raise HardwareNotDetected
        fresh = await inventory.freshness(session, cluster_id)
        live = await inventory.live_sum(session, cluster_id) if fresh.complete else None
        return detected, live, fresh

    async def addons(self, session: ReadSession, cluster_id: UUID) -> list[ClusterAddon]:
        """What is installed, by name."""
        await self._clusters.require(session, cluster_id)
        found = select(ClusterAddon).where(ClusterAddon.cluster_id == cluster_id).order_by(ClusterAddon.name)
        return list(await session.scalars(found))
