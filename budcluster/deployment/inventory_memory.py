"""Reads inventories again and again: of a row that is known by its contents, these are neither sent nor read once more.

What is remembered is keyed by all that it was made of, so it cannot be out of date. A look takes one statement a table:
each holds at one moment, whatever changes meanwhile.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

import orjson
from sqlalchemy import text

from budcluster.deployment.fitting.rooms import Asked, Room, rooms_of
from budcluster.hardware.inventory_store import Load
from budcluster.hardware.reading.pods import PodRequest, read_pod
from budcluster.hardware.reading.profile import NodeProfile
from budcluster.hardware.reading.reader import read_node
from budcluster.kit.database import ReadSession

_MOST_NODES: Final = 20_000
"""That are remembered, of all clusters together: about 10 KB each."""
_TURN: Final = 20
"""Nodes read before other tasks get their turn: about 10 ms."""
_CLOSING: Final = {"NoSchedule", "NoExecute"}


PodKey = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A live pod that holds devices of a node."""

    node: str
    request: PodRequest
    release: str | None = None
    digest: bytes = b""
    """Of its document."""

    @property
    def key(self) -> PodKey:
        """Which pod of the cluster it is."""
        return self.request.namespace, self.request.name


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node as it was read, with its pods."""

    key: str
    """Tells document and feature from all others."""
    document: str
    feature: str | None
    pods: tuple[Holder, ...]
    load: Load | None
    """What its other pods ask for; None where nobody has looked yet."""
    profile: NodeProfile
    rooms: tuple[Room, ...]
    is_kept: bool
    """Whether it has GPUs, and a taint keeps it for pods that ask for them."""

    def with_pods(self, pods: Iterable[Holder]) -> "KnownNode":
        """The same node, if these were its pods with devices."""
        return _node(self.key, self.document, self.feature, tuple(pods), self.load)

    def with_load(self, load: Load | None) -> "KnownNode":
        """The same node, if its other pods asked for this."""
        return replace(self, load=load, rooms=_rooms(self.profile, self.pods, load))

    def asked(self, *, but: Collection[str]) -> Asked | None:
        """What its pods ask of it, but for copies without GPUs of these deployments; None where nobody knows."""
        asked = _asked(self.pods, self.load)
        if asked is None or self.load is None:
            return None
        out = [amounts for deployment, amounts in self.load.copies.items() if deployment in but]
        return Asked(asked.cores - sum(cpu for cpu, _ in out), asked.memory_bytes - sum(memory for _, memory in out))


@dataclass(frozen=True, slots=True)
class Inventory:
    """A cluster's nodes in order of their names, and the pods that hold devices of them."""

    nodes: Mapping[str, KnownNode] = field(default_factory=dict)
    pods: Sequence[Holder] = ()


class InventoryMemory:
    """The inventories that were looked at last."""

    def __init__(self, *, most_nodes: int = _MOST_NODES) -> None:
        self._most_nodes = most_nodes
        self._looked_at: OrderedDict[UUID, Inventory] = OrderedDict()

    async def look(self, session: ReadSession, cluster_id: UUID) -> Inventory:
        """The cluster as its rows are now."""
        before = self._looked_at.get(cluster_id, Inventory())
        pods = await _pods(session, cluster_id, {pod.digest: pod.request for pod in before.pods})
        inventory = Inventory(await _nodes(session, cluster_id, before.nodes, pods), pods)
        self._looked_at[cluster_id] = inventory
        self._looked_at.move_to_end(cluster_id)
        while len(self._looked_at) > 1 and sum(len(one.nodes) for one in self._looked_at.values()) > self._most_nodes:
            self._looked_at.popitem(last=False)
        return inventory


async def _pods(session: ReadSession, cluster_id: UUID, known: Mapping[bytes, PodRequest]) -> list[Holder]:
    rows = await session.execute(_PODS, {"cluster_id": cluster_id, "known": list(known)})
    return [
        Holder(node, known[digest] if document is None else read_pod(orjson.loads(document)), release, digest)
        for digest, node, release, document in rows
    ]


async def _nodes(
    session: ReadSession, cluster_id: UUID, known: Mapping[str, KnownNode], pods: Sequence[Holder]
) -> dict[str, KnownNode]:
    by_key = {node.key: node for node in known.values()}
    by_node: dict[str, list[Holder]] = defaultdict(list)
    for pod in pods:
        by_node[pod.node].append(pod)
    found, read = {}, 0
    rows = await session.execute(_NODES, {"cluster_id": cluster_id, "known": list(by_key)})
    for name, key, document, feature, *amounts in rows.all():
        its, load = tuple(by_node.get(name, ())), _load(*amounts)
        node = by_key.get(key)
        if node is None or node.pods != its:
            node = node.with_pods(its) if node else _node(key, document, feature, its, load)
        if node.load != load:
            node = node.with_load(load)
        found[name] = node
        read += node is not by_key.get(key)
        if read == _TURN:
            read = 0
            await asyncio.sleep(0)
    return found


def _node(key: str, document: str, feature: str | None, pods: tuple[Holder, ...], load: Load | None) -> KnownNode:
    node = orjson.loads(document)
    profile = read_node(node, feature=orjson.loads(feature) if feature else None, pods=[pod.request for pod in pods])
    taints = (node.get("spec") or {}).get("taints") or ()
    is_kept = bool(profile.gpus) and any(taint.get("effect") in _CLOSING for taint in taints)
    return KnownNode(key, document, feature, pods, load, profile, _rooms(profile, pods, load), is_kept)


def _rooms(profile: NodeProfile, pods: Iterable[Holder], load: Load | None) -> tuple[Room, ...]:
    return tuple(rooms_of([profile], asked=_asked(pods, load)))


def _load(cpu: float | None, memory: int | None, copies: str | None) -> Load | None:
    if cpu is None or memory is None or copies is None:
        return None
    return Load(cpu, memory, {deployment: (cores, size) for deployment, (cores, size) in orjson.loads(copies).items()})


def _asked(pods: Iterable[Holder], load: Load | None) -> Asked | None:
    if load is None:
        return None
    resources = [pod.request.resources for pod in pods]
    return Asked(
        load.cpu + sum(asked.get("cpu", 0) for asked in resources),
        load.memory + int(sum(asked.get("memory", 0) for asked in resources)),
    )


# A join, as the planner compares each row with a whole array where it has planned once for all lengths of it.
_PODS: Final = text("""
    select pod.digest, pod.node, pod.release, case when known.digest is null then cast(pod.document as text) end
    from inventory_gpu_pods as pod
    left join (select distinct unnest(cast(:known as bytea[])) as digest) as known using (digest)
    where pod.cluster_id = :cluster_id and pod.node is not null and pod.phase not in ('Succeeded', 'Failed')
    order by pod.namespace, pod.name
""")
_NODES: Final = text("""
    with node as materialized (
        select name, document, feature, cpu_requested, memory_requested_bytes, copies,
               concat_ws(' ', name, encode(digest, 'hex'), encode(sha256(convert_to(feature::text, 'UTF8')), 'hex'))
               as key
        from inventory_nodes where cluster_id = :cluster_id
    )
    select name, key, case when known.key is null then cast(document as text) end,
           case when known.key is null then cast(feature as text) end,
           cpu_requested, memory_requested_bytes, cast(copies as text)
    from node left join (select distinct unnest(cast(:known as text[])) as key) as known using (key)
    order by name
""")
