"""Writes the inventory of one cluster: batches, each in one transaction that also proves that the writer still may.

One replica holds the lease of a cluster. A write by one that has lost it, because it was frozen or cut off, changes
nothing and says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import NAMESPACE_OID, UUID, uuid5

import orjson
from sqlalchemy import delete, select, text, tuple_

from budcluster.hardware.models import InventoryGpuPod, InventoryNode
from budcluster.hardware.reading.reader import read_node
from budcluster.hardware.reading.readiness import is_pressed
from budcluster.hardware.reading.trimming import digest_of
from budcluster.kit.database import Database, WriteSession
from budcluster.kube.times import moment

Json = dict[str, Any]
_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)
PodKey = tuple[str, str]
"""Namespace and name."""


class LeaseLost(Exception):
    """Another replica keeps this inventory now, or the cluster is gone. Nothing was written."""


@dataclass(frozen=True, slots=True)
class SeenNode:
    """A node as it was seen last, trimmed."""

    uid: str
    created_at: str
    document: Json
    digest: bytes


@dataclass(frozen=True, slots=True)
class SeenPod:
    """A pod with GPUs as it was seen last, trimmed."""

    release: str | None
    document: Json
    digest: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """What the pods of a node ask for, but for those with GPUs."""

    cpu: float
    memory: int
    copies: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    """The part of copies of deployments, cores and bytes, by what they say is the deployment's id."""


@dataclass
class Batch:
    """What changed since the last write. None stands for what is gone."""

    nodes: dict[str, SeenNode | None] = field(default_factory=dict)
    features: set[str] = field(default_factory=set)
    """Nodes of which only the NodeFeature changed."""
    pods: dict[PodKey, SeenPod | None] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    """Of nodes that are there."""

    def __bool__(self) -> bool:
        return bool(self.nodes or self.features or self.pods or self.loads)

    def put_back(self, older: "Batch") -> None:
        """Take over what could not be written; what was seen since then stands."""
        self.nodes = {**older.nodes, **self.nodes}
        self.pods = {**older.pods, **self.pods}
        self.features |= older.features


@dataclass(frozen=True, slots=True)
class Standing:
    """How the inventory stands at the moment of a write."""

    complete: bool
    as_of: datetime | None
    """None leaves the stored one."""
    heard: bool
    """Whether the cluster was heard since this keeper began: before that an older problem stands."""
    problem: str | None
    cpu_requested: float
    memory_requested_bytes: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the rows say already, for whoever takes over."""

    nodes: dict[str, bytes]
    features: dict[str, bytes]
    pods: dict[PodKey, bytes]


class InventoryStore:
    """The rows of one cluster."""

    def __init__(self, database: Database, cluster_id: UUID, *, holder: str, lease: timedelta) -> None:
        self._database = database
        self._cluster_id = cluster_id
        self._mine = {"cluster_id": cluster_id, "holder": holder}
        self._lease = {"lease": lease}

    async def take(self) -> bool:
        """Take the lease if it is free, expired, or ours. Raises DatabaseUnavailable, as all methods do."""
        async with self._database.writing() as session:
            return (await session.execute(_TAKE, self._mine | self._lease)).one_or_none() is not None

    async def give_back(self) -> None:
        """Let another replica go on at once."""
        async with self._database.writing() as session:
            await session.execute(_GIVE_BACK, self._mine)

    async def rest(self, problem: str, *, pause: timedelta) -> None:
        """Say why nothing new comes in, and let nobody take the lease for a while."""
        async with self._database.writing() as session:
            await session.execute(_REST, {**self._mine, "problem": problem, "pause": pause})

    async def known(self) -> Known:
        """What was written before."""
        async with self._database.reading() as session:
            node, pod = InventoryNode, InventoryGpuPod
            nodes = await session.execute(
                select(node.name, node.digest, node.feature).where(node.cluster_id == self._cluster_id)
            )
            rows = nodes.all()
            pods = await session.execute(
                select(pod.namespace, pod.name, pod.digest).where(pod.cluster_id == self._cluster_id)
            )
            return Known(
                nodes={name: digest for name, digest, _ in rows},
                features={name: feature_bytes(feature) for name, _, feature in rows if feature is not None},
                pods={(namespace, name): digest for namespace, name, digest in pods},
            )

    async def write(self, batch: Batch, standing: Standing, features: Mapping[str, bytes]) -> None:
        """Write a batch and how the inventory stands. `features` are trimmed NodeFeatures as JSON, by node.

        Raises LeaseLost.
        """
        async with self._database.writing() as session:
            values = {
                "complete": standing.complete,
                "as_of": standing.as_of,
                "heard": standing.heard,
                "problem": standing.problem,
                "cpu": standing.cpu_requested,
                "memory": standing.memory_requested_bytes,
            }
            if (await session.execute(_STAND, {**self._mine, **self._lease, **values})).one_or_none() is None:
                raise LeaseLost
            if batch:
                await self._write_nodes(session, batch, features)
                await self._write_pods(session, batch.pods)
                loads = [{"name": name, **asdict(load)} for name, load in batch.loads.items()]
                await self._upsert(session, _UPDATE_LOADS, loads)

    async def _write_nodes(self, session: WriteSession, batch: Batch, features: Mapping[str, bytes]) -> None:
        rows = [_node_row(name, seen, features.get(name)) for name, seen in batch.nodes.items() if seen is not None]
        rows += await self._with_new_feature(session, batch.features - batch.nodes.keys(), features)
        await self._upsert(session, _UPSERT_NODES, rows)
        gone = [name for name, seen in batch.nodes.items() if seen is None]
        if gone:
            node = InventoryNode
            await session.execute(delete(node).where(node.cluster_id == self._cluster_id, node.name.in_(gone)))

    async def _with_new_feature(
        self, session: WriteSession, names: Iterable[str], features: Mapping[str, bytes]
    ) -> list[Json]:
        """The nodes' own documents are in the rows: nobody keeps them in memory."""
        node = InventoryNode
        wanted = select(node.name, node.uid, node.created_at, node.document, node.digest)
        found = await session.execute(wanted.where(node.cluster_id == self._cluster_id, node.name.in_(list(names))))
        return [
            _node_row(name, SeenNode(str(uid), created_at.isoformat(), document, digest), features.get(name))
            for name, uid, created_at, document, digest in found
        ]

    async def _write_pods(self, session: WriteSession, pods: Mapping[PodKey, SeenPod | None]) -> None:
        await self._upsert(
            session, _UPSERT_PODS, [_pod_row(key, seen) for key, seen in pods.items() if seen is not None]
        )
        gone = [key for key, seen in pods.items() if seen is None]
        if gone:
            pod = InventoryGpuPod
            await session.execute(
                delete(pod).where(pod.cluster_id == self._cluster_id, tuple_(pod.namespace, pod.name).in_(gone))
            )

    async def _upsert(self, session: WriteSession, statement: Any, rows: list[Json]) -> None:
        # One JSON document instead of one parameter a value: a tenth of the time for thousands of rows.
        if rows:
            await session.execute(statement, {"cluster_id": self._cluster_id, "rows": orjson.dumps(rows).decode()})


def feature_bytes(feature: Json) -> bytes:
    """A trimmed NodeFeature as it is kept in memory: to compare, and a tenth of the size of dictionaries."""
    return orjson.dumps(feature, option=orjson.OPT_SORT_KEYS)


def _node_row(name: str, seen: SeenNode, feature: bytes | None) -> Json:
    read = orjson.loads(feature) if feature is not None else None
    profile = read_node(seen.document, feature=read)
    return {
        "name": name,
        "uid": str(_uuid(seen.uid, name)),
        "created_at": (moment(seen.created_at) or _LONG_AGO).isoformat(),
        "document": seen.document,
        "feature": read,
        "digest": seen.digest.hex(),
        "ready": profile.ready,
        "schedulable": profile.schedulable,
        "pressed": is_pressed(seen.document),
        "cpu_cores": profile.cpu.allocatable_cores,
        "memory_bytes": profile.allocatable_memory_bytes,
        "gpu_count": len(profile.gpus),
        "gpus_healthy": sum(gpu.healthy for gpu in profile.gpus),
        "gpu_model": (profile.gpus[0].model or "")[:128] or None if profile.gpus else None,
    }


def _pod_row(key: PodKey, seen: SeenPod) -> Json:
    namespace, name = key
    return {
        "namespace": namespace,
        "name": name,
        "uid": str(seen.document["metadata"].get("uid") or "")[:64],
        "node": seen.document["spec"].get("nodeName"),
        "phase": seen.document["status"]["phase"],
        "release": seen.release,
        "document": seen.document,
        "digest": seen.digest.hex(),
    }


def seen_node(node: Mapping[str, Any], trimmed: Json) -> SeenNode:
    """A node from the API, with its trimmed self."""
    metadata = node.get("metadata") or {}
    uid, created_at = str(metadata.get("uid") or ""), str(metadata.get("creationTimestamp") or "")
    return SeenNode(uid, created_at, trimmed, digest_of(trimmed))


def _uuid(uid: str, name: str) -> UUID:
    try:
        return UUID(uid)
    except ValueError:
        return uuid5(NAMESPACE_OID, name)


_TAKE: Final = text("""
    insert into inventory_states (cluster_id, holder, lease_until)
    select id, :holder, now() + :lease from clusters where id = :cluster_id
    on conflict (cluster_id) do update set holder = excluded.holder, lease_until = excluded.lease_until
    where inventory_states.lease_until is null or inventory_states.lease_until < now()
       or inventory_states.holder = excluded.holder
    returning cluster_id
""")
_GIVE_BACK: Final = text("""
    update inventory_states set holder = null, lease_until = null
    where cluster_id = :cluster_id and holder = :holder
""")
_REST: Final = text("""
    update inventory_states set holder = null, lease_until = now() + :pause, error = :problem
    where cluster_id = :cluster_id and holder = :holder
""")
_STAND: Final = text("""
    update inventory_states
    set lease_until = now() + :lease, synced = synced or :complete, as_of = coalesce(:as_of, as_of),
        error = case when :heard then :problem else coalesce(:problem, error) end,
        cpu_requested = case when :complete then :cpu else cpu_requested end,
        memory_requested_bytes = case when :complete then :memory else memory_requested_bytes end
    where cluster_id = :cluster_id and holder = :holder
    returning cluster_id
""")
_UPSERT_NODES: Final = text("""
    insert into inventory_nodes (cluster_id, name, uid, created_at, document, feature, digest, ready, schedulable,
                                 pressed, cpu_cores, memory_bytes, gpu_count, gpus_healthy, gpu_model)
    select :cluster_id, name, uid, created_at, document, feature, decode(digest, 'hex'), ready, schedulable,
           pressed, cpu_cores, memory_bytes, gpu_count, gpus_healthy, gpu_model
    from jsonb_to_recordset(cast(cast(:rows as text) as jsonb)) as row (
        name text, uid uuid, created_at timestamptz, document jsonb, feature jsonb, digest text, ready boolean,
        schedulable boolean, pressed boolean, cpu_cores float, memory_bytes bigint, gpu_count int, gpus_healthy int,
        gpu_model text)
    on conflict (cluster_id, name) do update set
        uid = excluded.uid, created_at = excluded.created_at, document = excluded.document,
        feature = excluded.feature, digest = excluded.digest, ready = excluded.ready,
        schedulable = excluded.schedulable, pressed = excluded.pressed, cpu_cores = excluded.cpu_cores,
        memory_bytes = excluded.memory_bytes, gpu_count = excluded.gpu_count,
        gpus_healthy = excluded.gpus_healthy, gpu_model = excluded.gpu_model
""")
_UPDATE_LOADS: Final = text("""
    update inventory_nodes as node
    set cpu_requested = row.cpu, memory_requested_bytes = row.memory, copies = row.copies
    from jsonb_to_recordset(cast(cast(:rows as text) as jsonb)) as row (
        name text, cpu float, memory bigint, copies jsonb)
    where node.cluster_id = :cluster_id and node.name = row.name
""")
_UPSERT_PODS: Final = text("""
    insert into inventory_gpu_pods (cluster_id, namespace, name, uid, node, phase, release, document, digest)
    select :cluster_id, namespace, name, uid, node, phase, release, document, decode(digest, 'hex')
    from jsonb_to_recordset(cast(cast(:rows as text) as jsonb)) as row (
        namespace text, name text, uid text, node text, phase text, release text, document jsonb, digest text)
    on conflict (cluster_id, namespace, name) do update set
        uid = excluded.uid, node = excluded.node, phase = excluded.phase, release = excluded.release,
        document = excluded.document, digest = excluded.digest
""")
