"""What a cluster has room for: its hardware as last seen, and the deployments that were accepted since."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import select, text
from sqlalchemy.orm import aliased

from budcluster.cluster.models import Cluster
from budcluster.deployment.demands import AnyDemand, Demand, ProcessorDemand
from budcluster.deployment.fit import Fit, check_fit
from budcluster.deployment.model_facts import ModelFacts
from budcluster.deployment.models import Deployment, DeploymentRevision, DeploymentStatus
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import Site, demand_of
from budcluster.deployment.processors import Asked, check_processors
from budcluster.deployment.promises import End, PodKey, Promised, Standing
from budcluster.deployment.rooms import Room, rooms_of
from budcluster.deployment.values import resource_in, surges
from budcluster.hardware.inventory import freshness, read_nodes, totals
from budcluster.hardware.models import AddonName, AddonState, ClusterAddon, InventoryGpuPod, InventoryNode
from budcluster.hardware.pods import PodRequest, by_node, read_pod
from budcluster.hardware.profile import HardwareProfile, NodeProfile
from budcluster.hardware.reader import read_node
from budcluster.kit.database import ReadSession
from budcluster.operations.models import FINISHED, Operation

_PROFILE: Final = TypeAdapter(HardwareProfile)
_GONE: Final = (DeploymentStatus.DELETING, DeploymentStatus.PARKED)
_CHANGES: Final = ("update_deployment", "scale_deployment")
"""Work that goes back to where the deployment came from when it fails."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A cluster as it was seen."""

    site: Site
    asked: Asked | None = None
    copies: Mapping[str, Sequence[Standing]] = field(default_factory=dict)
    """Copies that hold their devices already, by release."""
    raw: Mapping[str, InventoryNode] = field(default_factory=dict)
    """The nodes on which they stand, as they were read."""
    pods: Mapping[str, Sequence[PodRequest]] = field(default_factory=dict)
    """All pods with GPUs, by node."""

    def rooms(self, *, without: frozenset[PodKey] = frozenset()) -> list[Room]:
        """The rooms, as if these pods were gone. A room that none of them is in is the same object each time."""
        changed = {
            node: rooms_of([self._node(row, without)])
            for node, row in self.raw.items()
            if any((pod.namespace, pod.name) in without for pod in self.pods.get(node, ()))
        }
        if not changed:
            return list(self.site.rooms)
        fresh = {(room.node, room.resource): room for rooms in changed.values() for room in rooms}
        return [fresh.get((room.node, room.resource), room) for room in self.site.rooms]

    def _node(self, row: InventoryNode, without: frozenset[PodKey]) -> NodeProfile:
        left = [pod for pod in self.pods.get(row.name, ()) if (pod.namespace, pod.name) not in without]
        return read_node(row.document, feature=row.feature, pods=left)


@dataclass(frozen=True, slots=True)
class Prospect:
    """A cluster as one deployment finds it, after everybody else has what he was promised."""

    site: Site
    own: tuple[Standing, ...]
    """Its copies that stand."""
    beside: tuple[Room, ...]
    """While they stand."""
    freed: tuple[Room, ...]
    """When they are gone."""
    waiting: tuple[Demand, ...] = ()
    """Of others, still to be placed in either."""
    without_gpus: tuple[ProcessorDemand, ...] = ()
    """Of others: all of them, whether they stand or not."""
    asked: Asked | None = None

    @property
    def own_rooms(self) -> list[Room]:
        """Those in which its copies stand."""
        nodes = {copy.node for copy in self.own}
        return [room for room in self.freed if room.node in nodes]

    def fit(self, demand: AnyDemand, *, freed: bool) -> Fit:
        """Whether there is room for the demand's replicas, once its own copies are gone or beside them."""
        if isinstance(demand, Demand):
            return check_fit(demand, self.freed if freed else self.beside, waiting=self.waiting)
        return check_processors(
            demand,
            self.site.nodes,
            kept=self.site.kept,
            asked=None if freed else self.asked,
            waiting=self.without_gpus,
        )


async def prospect(
    session: ReadSession, cluster: Cluster, namespace: str, *, own: Deployment | None = None
) -> Prospect:
    """Look at the cluster for a deployment; `own` is its row where it exists."""
    seen = await _look(session, cluster, namespace)
    standing = tuple(seen.copies.get(own.helm_release, ())) if own else ()
    promised = await _promised(session, cluster.id, seen, but=own.id if own else None)
    mine = frozenset(copy.key for copy in standing)
    return Prospect(
        site=seen.site,
        own=standing,
        beside=tuple(promised.rooms(seen)),
        freed=tuple(promised.rooms(seen, without=mine)),
        waiting=tuple(promised.waiting),
        without_gpus=tuple(promised.without_gpus),
        asked=seen.asked,
    )


async def _promised(session: ReadSession, cluster_id: UUID, seen: Seen, *, but: UUID | None) -> Promised:
    """What all deployments but one are still to get. One that is changing may go back to where it comes from."""
    promised = Promised()
    current, previous = aliased(DeploymentRevision), aliased(DeploymentRevision)
    back_to = Operation.payload["previous_revision"].as_integer()
    rows = (
        select(Deployment, current.values, previous, Operation.payload)
        .outerjoin(current, (current.deployment_id == Deployment.id) & (current.number == Deployment.revision))
        .outerjoin(
            Operation,
            (Operation.subject_id == Deployment.id) & Operation.kind.in_(_CHANGES) & Operation.status.not_in(FINISHED),
        )
        .outerjoin(previous, (previous.deployment_id == Deployment.id) & (previous.number == back_to))
        .where(Deployment.cluster_id == cluster_id, Deployment.status.not_in(_GONE))
        .order_by(Deployment.created_at)
    )
    for row, values, earlier, payload in await session.execute(rows):
        if row.id == but or _is_withdrawn(row):
            continue
        is_other = earlier is not None and earlier.number != row.revision
        config = DeploymentConfig.model_validate(row.config)
        surplus = 1 if is_other and values is not None and surges(values) else 0
        ends = [End(demand_in(row, config, values, seen.site), row.replicas_desired, surplus, is_other=is_other)]
        if earlier is not None:
            config = DeploymentConfig.model_validate(earlier.config)
            demand = demand_in(row, config, earlier.values, seen.site)
            ends.append(End(demand, payload["previous_replicas"], is_other=is_other))
        promised.add(ends, seen.copies.get(row.helm_release, ()), seen.site.rooms)
    return promised


def demand_in(row: Deployment, config: DeploymentConfig, values: Mapping[str, Any] | None, site: Site) -> AnyDemand:
    """What one copy of the deployment asks for with this config, by the name that its values use."""
    demand = replace(demand_of(config, row.runtime, facts_of(row), site), replicas=1)
    if isinstance(demand, Demand):
        return replace(demand, resource=resource_in(values) if values else None)
    return demand


def _is_withdrawn(row: Deployment) -> bool:
    """Its first start failed, and nothing of it is in the cluster."""
    is_left = "install_release" in (row.error or {}).get("left", ())
    return row.status is DeploymentStatus.FAILED and not row.endpoints and not is_left


async def _look(session: ReadSession, cluster: Cluster, namespace: str) -> Seen:
    """What is free now; before the inventory is complete, what was free when the hardware was detected."""
    fresh = await freshness(session, cluster.id)
    if not fresh.complete:
        detected = await session.scalar(select(Cluster.hardware_profile).where(Cluster.id == cluster.id))
        known = _PROFILE.validate_python(detected)
        kept = frozenset(node.name for node in known.nodes if node.pools)
        return Seen(await _site(session, cluster.id, known.nodes, kept))
    sums = await totals(session, cluster.id)
    # Each table is read once: between two looks the inventory may change, and a GPU would be promised twice.
    rows = (await session.scalars(select(InventoryNode).where(InventoryNode.cluster_id == cluster.id))).all()
    held = await _held(session, cluster.id)
    pods = by_node(pod.document for pod in held)
    copies = _copies(held, namespace)
    places = {copy.node for standing in copies.values() for copy in standing}
    return Seen(
        site=await _site(session, cluster.id, await read_nodes(rows, pods), _kept(rows)),
        asked=Asked(sums.cpu_requested, sums.memory_requested_bytes),
        copies=copies,
        raw={row.name: row for row in rows if row.name in places},
        pods=pods,
    )


async def _site(session: ReadSession, cluster_id: UUID, nodes: Sequence[NodeProfile], kept: frozenset[str]) -> Site:
    present = await session.scalars(
        select(ClusterAddon.name).where(ClusterAddon.cluster_id == cluster_id, ClusterAddon.state == AddonState.READY)
    )
    addons = set(present)
    return Site(
        rooms=tuple(rooms_of(nodes)),
        nodes=tuple(nodes),
        kept=kept,
        has_pod_monitors=AddonName.PROMETHEUS in addons,
        runtime_class="nvidia" if AddonName.GPU_OPERATOR in addons else "",
    )


def _kept(rows: Iterable[InventoryNode]) -> frozenset[str]:
    """Nodes with GPUs that a taint keeps for pods which ask for them."""
    closing = {"NoSchedule", "NoExecute"}
    return frozenset(
        row.name
        for row in rows
        if row.gpu_count
        and any(one.get("effect") in closing for one in (row.document.get("spec") or {}).get("taints") or ())
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """A live pod that holds devices of a node."""

    namespace: str
    release: str | None
    node: str
    document: dict[str, Any]


async def _held(session: ReadSession, cluster_id: UUID) -> list[_Held]:
    pod = InventoryGpuPod
    rows = await session.execute(
        select(pod.namespace, pod.release, pod.node, pod.document)
        .where(pod.cluster_id == cluster_id, pod.node.is_not(None), pod.phase.not_in(("Succeeded", "Failed")))
        .order_by(pod.namespace, pod.name)
    )
    return [_Held(*row) for row in rows]


def _copies(pods: Iterable[_Held], namespace: str) -> dict[str, list[Standing]]:
    copies: dict[str, list[Standing]] = defaultdict(list)
    for pod in pods:
        if pod.release is not None and pod.namespace == namespace:
            copies[pod.release].append(Standing(pod.node, read_pod(pod.document)))
    return dict(copies)


async def hold(session: ReadSession, cluster_id: UUID) -> None:
    """One decision at a time on a cluster: until the caller's transaction ends, others wait here."""
    key = f"capacity:{cluster_id}"
    await session.execute(text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})


def facts_of(row: Deployment) -> ModelFacts | None:
    """What is known of its model."""
    return ModelFacts(**row.model_facts) if row.model_facts else None


def as_facts(fit: Fit) -> dict[str, Any]:
    """As callers see it."""
    facts = asdict(fit)
    return {**facts, "verdict": fit.verdict.value}
