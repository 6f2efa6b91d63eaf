"""Reads the live inventory: nodes, devices and what is free now, out of the rows that the watch keeps fresh.

Every answer says how fresh it is. Nothing here speaks to a cluster.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, Integer, cast, func, select
from sqlalchemy.orm import defer

from budcluster.api.paging import Listing, PageQuery, Rows
from budcluster.hardware.models import InventoryGpu, InventoryGpuPod, InventoryNode, InventoryState
from budcluster.hardware.reading.labels import MOST_IN_SUM
from budcluster.hardware.reading.pods import PodRequest, by_node
from budcluster.hardware.reading.profile import ClusterSum, Gpu, ModelSum, NodeProfile, PoolUse
from budcluster.hardware.reading.reader import read_node, summarize
from budcluster.kit.database import ReadSession

_NODES: Final = Listing(
    InventoryNode,
    key=InventoryNode.uid,
    sorts={"name": InventoryNode.name, "created_at": InventoryNode.created_at},
    filters={
        "cluster_id": InventoryNode.cluster_id,
        "ready": InventoryNode.ready,
        "schedulable": InventoryNode.schedulable,
        "gpu_model": InventoryNode.gpu_model,
    },
)
_GPUS: Final = Listing(
    InventoryGpu,
    key=InventoryGpu.node_uid,
    sorts={"place": InventoryGpu.place},
    filters={"cluster_id": InventoryGpu.cluster_id, "node": InventoryGpu.node, "gpu_model": InventoryGpu.gpu_model},
)
_CHUNK: Final = 50
"""Nodes read before other tasks get their turn: about 10 ms."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far the inventory of a cluster can be believed."""

    as_of: datetime | None
    """What the inventory says held at this moment; None before the first complete read."""
    complete: bool
    problem: str | None
    """Why nothing newer comes in, in a sentence; None while all is well."""


@dataclass(frozen=True, slots=True)
class PlacedGpu:
    """One physical device, where it is, and what a new pod could get of its node now."""

    node: str
    position: int
    """Among the devices of its node, from 0."""
    gpu: Gpu
    schedulable: bool
    reasons: tuple[str, ...]
    """Why nothing can be placed on its node; empty on a usable one."""
    pool_free: int | None
    """What is free of the pool that it belongs to; tells less than the device itself, and is known for all vendors."""
    pool_used_by: tuple[PoolUse, ...]
    """The pods that hold devices of its pool: this one among them, where `used_by` of the device itself is null."""


@dataclass(frozen=True, slots=True)
class LiveSum:
    """A cluster as it stands now."""

    nodes: int
    nodes_ready: int
    nodes_schedulable: int
    gpus: int
    gpus_healthy: int
    by_model: tuple[ModelSum, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the nodes and pods of a cluster, straight from the columns."""

    nodes: int
    nodes_ready: int
    nodes_schedulable: int
    nodes_pressed: int
    gpus: int
    gpus_healthy: int
    cpu_cores: float
    """Allocatable, as the memory."""
    memory_bytes: int
    cpu_requested: float
    memory_requested_bytes: int


async def freshness(session: ReadSession, cluster_id: UUID) -> Freshness:
    """How fresh the inventory is."""
    state = await session.get(InventoryState, cluster_id)
    if state is None:
        return Freshness(None, complete=False, problem=None)
    return Freshness(state.as_of, state.synced, state.error)


async def nodes_page(
    session: ReadSession, cluster_id: UUID, query: PageQuery, *, prefix: str | None
) -> Rows[NodeProfile]:
    """One page of nodes, with what is free on them. `prefix` is of their names. Raises InvalidCursor."""
    wanted = select(InventoryNode).options(defer(InventoryNode.digest))
    if prefix:
        wanted = wanted.where(InventoryNode.name.startswith(prefix, autoescape=True))
    rows = await _NODES.page(session, query, wanted)
    return Rows(await profiles_of(session, cluster_id, rows.items), rows.next_cursor)


async def gpus_page(session: ReadSession, cluster_id: UUID, query: PageQuery) -> Rows[PlacedGpu]:
    """One page of physical devices, node by node. Raises InvalidCursor."""
    places = await _GPUS.page(session, query)
    names = {place.node for place in places.items}
    rows = await session.scalars(
        select(InventoryNode).where(InventoryNode.cluster_id == cluster_id, InventoryNode.name.in_(names))
    )
    nodes = {node.name: node for node in await profiles_of(session, cluster_id, rows.all())}
    found = [_placed(nodes[place.node], place.position) for place in places.items if place.node in nodes]
    return Rows([gpu for gpu in found if gpu is not None], places.next_cursor)


async def live_sum(session: ReadSession, cluster_id: UUID) -> LiveSum:
    """What the cluster has and what is free of it now. Only nodes with GPUs are read in full."""
    of_gpus: ClusterSum = summarize(await gpu_nodes(session, cluster_id))
    all_nodes = await totals(session, cluster_id)
    return LiveSum(
        nodes=all_nodes.nodes,
        nodes_ready=all_nodes.nodes_ready,
        nodes_schedulable=all_nodes.nodes_schedulable,
        gpus=of_gpus.gpus,
        gpus_healthy=of_gpus.gpus_healthy,
        by_model=of_gpus.by_model,
    )


async def gpu_nodes(session: ReadSession, cluster_id: UUID) -> tuple[NodeProfile, ...]:
    """The nodes that have GPUs, each with its pods."""
    rows = await session.scalars(
        select(InventoryNode).where(InventoryNode.cluster_id == cluster_id, InventoryNode.gpu_count > 0)
    )
    return await profiles_of(session, cluster_id, rows.all())


async def totals(session: ReadSession, cluster_id: UUID) -> Totals:
    """Sums over the cluster; zero where nothing is known."""
    node = InventoryNode
    sums = await session.execute(
        select(
            func.count().label("nodes"),
            func.count().filter(node.ready).label("nodes_ready"),
            func.count().filter(node.schedulable).label("nodes_schedulable"),
            func.count().filter(node.pressed).label("nodes_pressed"),
            cast(func.coalesce(func.sum(node.gpu_count), 0), Integer).label("gpus"),
            cast(func.coalesce(func.sum(node.gpus_healthy), 0), Integer).label("gpus_healthy"),
            func.coalesce(func.sum(node.cpu_cores), 0.0).label("cpu_cores"),
            # The sum is numeric: it cannot overflow before it is cut.
            cast(func.least(func.coalesce(func.sum(node.memory_bytes), 0), MOST_IN_SUM), BigInteger).label(
                "memory_bytes"
            ),
        ).where(node.cluster_id == cluster_id)
    )
    state = await session.get(InventoryState, cluster_id)
    return Totals(
        **sums.mappings().one(),
        cpu_requested=state.cpu_requested if state else 0.0,
        memory_requested_bytes=state.memory_requested_bytes if state else 0,
    )


async def profiles_of(session: ReadSession, cluster_id: UUID, rows: Sequence[InventoryNode]) -> tuple[NodeProfile, ...]:
    """The nodes behind these rows, each with its pods."""
    names = {row.name for row in rows if row.gpu_count}
    return await read_nodes(rows, await _requests(session, cluster_id, names))


async def read_nodes(
    rows: Sequence[InventoryNode], requests: Mapping[str, list[PodRequest]]
) -> tuple[NodeProfile, ...]:
    """The nodes behind these rows, with the pods that are given by node."""
    profiles = []
    for number, row in enumerate(rows):
        if number % _CHUNK == _CHUNK - 1:
            await asyncio.sleep(0)
        profiles.append(read_node(row.document, feature=row.feature, pods=requests.get(row.name)))
    return tuple(profiles)


async def _requests(session: ReadSession, cluster_id: UUID, nodes: Iterable[str]) -> dict[str, list[PodRequest]]:
    documents = await session.scalars(
        select(InventoryGpuPod.document)
        .where(InventoryGpuPod.cluster_id == cluster_id, InventoryGpuPod.node.in_(list(nodes)))
        .order_by(InventoryGpuPod.namespace, InventoryGpuPod.name)
    )
    return defaultdict(list, by_node(documents.all()))


def _placed(node: NodeProfile, position: int) -> PlacedGpu | None:
    if position >= len(node.gpus):
        return None  # its node has changed since the page was counted
    gpu = node.gpus[position]
    pools = [pool for pool in node.pools if pool.holds(gpu)]
    return PlacedGpu(
        node=node.name,
        position=position,
        gpu=gpu,
        schedulable=node.schedulable,
        reasons=node.reasons,
        pool_free=sum(pool.free for pool in pools) if pools else None,
        pool_used_by=tuple(use for pool in pools for use in pool.used_by),
    )
