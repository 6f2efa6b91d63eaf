"""What a cluster has room for: its hardware as last seen, and the deployments that were accepted since."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Select, Text, case, cast, exists, false, func, not_, select, text
from sqlalchemy.orm import aliased

from budcluster.cluster.models import Cluster
from budcluster.deployment.fitting.demands import AnyDemand, Demand, ProcessorDemand
from budcluster.deployment.fitting.fit import Fit, check_fit
from budcluster.deployment.fitting.model_facts import ModelFacts
from budcluster.deployment.fitting.processors import check_processors
from budcluster.deployment.fitting.rooms import Asked, Room, rooms_of
from budcluster.deployment.inventory_memory import Holder, Inventory, InventoryMemory, PodKey
from budcluster.deployment.models import Deployment, DeploymentRevision, DeploymentStatus, RuntimeType
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import Site, demand_of
from budcluster.deployment.promises import End, Promised
from budcluster.deployment.refs import SMOKE_TEST
from budcluster.deployment.runtimes.launch import Hardware
from budcluster.deployment.values import resource_in, surges
from budcluster.hardware.models import AddonName, AddonState, ClusterAddon, InventoryState
from budcluster.hardware.reading.profile import HardwareProfile, NodeProfile
from budcluster.kit.database import ReadSession
from budcluster.operations.models import FINISHED, Operation, OperationStep, StepStatus

_PROFILE: Final = TypeAdapter(HardwareProfile)
_GONE: Final = (DeploymentStatus.DELETING, DeploymentStatus.PARKED)
_CHANGES: Final = ("update_deployment", "scale_deployment")
"""Work that goes back to where the deployment came from when it fails."""
_REMEMBERED: Final = 2_000
"""Configs, and what they ask for: a few KB each."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A cluster as it was seen."""

    site: Site
    asked: Asked | None = None
    copies: Mapping[str, Sequence[Holder]] = field(default_factory=dict)
    """Copies that hold their devices already, by release."""
    inventory: Inventory = field(default_factory=Inventory)

    def rooms(self, *, without: frozenset[PodKey] = frozenset()) -> list[Room]:
        """The rooms, as if these pods were gone. A room that none of them is in is the same object each time."""
        fresh: dict[tuple[str, str], Room] = {}
        for name in {pod.node for pod in self.inventory.pods if pod.key in without}:
            if (node := self.inventory.nodes.get(name)) is not None:
                left = node.with_pods(pod for pod in node.pods if pod.key not in without)
                fresh |= {(room.node, room.resource): room for room in left.rooms}
        if not fresh:
            return list(self.site.rooms)
        return [fresh.get((room.node, room.resource), room) for room in self.site.rooms]


@dataclass(frozen=True, slots=True)
class Prospect:
    """A cluster as one deployment finds it, after everybody else has what he was promised."""

    site: Site
    own: tuple[Holder, ...]
    """Its copies that stand."""
    beside: tuple[Room, ...]
    """While they stand."""
    freed: tuple[Room, ...]
    """When they are gone."""
    waiting: tuple[Demand, ...] = ()
    """Of others, still to be placed in either."""
    without_gpus: Mapping[str, ProcessorDemand] = field(default_factory=dict)
    """Of others, by their ids: all copies, whether they stand or not."""
    own_id: str | None = None
    asked: Asked | None = None
    inventory: Inventory = field(default_factory=Inventory)

    @property
    def own_rooms(self) -> list[Room]:
        """Those in which its copies stand."""
        nodes = {copy.node for copy in self.own}
        return [room for room in self.freed if room.node in nodes]

    def fit(self, demand: AnyDemand, *, freed: bool) -> Fit:
        """Whether there is room for the demand's replicas, once its own copies are gone or beside them."""
        if isinstance(demand, Demand):
            return check_fit(demand, self.freed if freed else self.beside, waiting=self.waiting)
        # A copy that nobody was promised, as one of a deployment that is being deleted, counts where it stands.
        promised = {*self.without_gpus, *([self.own_id] if self.own_id and freed else [])}
        by_node = {name: node.asked(but=promised) for name, node in self.inventory.nodes.items()}
        return check_processors(
            demand,
            self.site.nodes,
            kept=self.site.kept,
            asked=None if freed else self.asked,
            by_node={name: asked for name, asked in by_node.items() if asked is not None},
            waiting=self.without_gpus.values(),
        )


class Capacity:
    """Looks at clusters for deployments. Reads only."""

    def __init__(self, namespace: str) -> None:
        """`namespace` is where releases are."""
        self._namespace = namespace
        self._memory = InventoryMemory()

    async def prospect(self, session: ReadSession, cluster: Cluster, *, own: Deployment | None = None) -> Prospect:
        """Look at the cluster for a deployment; `own` is its row where it exists."""
        seen = await self._look(session, cluster.id)
        standing = tuple(seen.copies.get(own.helm_release, ())) if own else ()
        promised = await _promised(session, cluster.id, seen, but=own.id if own else None)
        beside = tuple(promised.rooms(seen))
        mine = frozenset(copy.key for copy in standing)
        return Prospect(
            site=seen.site,
            own=standing,
            beside=beside,
            freed=tuple(promised.rooms(seen, without=mine)) if mine else beside,
            waiting=tuple(promised.waiting),
            without_gpus=promised.without_gpus,
            own_id=str(own.id) if own else None,
            asked=seen.asked,
            inventory=seen.inventory,
        )

    async def _look(self, session: ReadSession, cluster_id: UUID) -> Seen:
        """What is free now; before the inventory is complete, what was free when the hardware was detected."""
        state = (await session.execute(_STATE.where(Cluster.id == cluster_id))).one()
        if not state.synced:
            detected = await session.scalar(select(Cluster.hardware_profile).where(Cluster.id == cluster_id))
            nodes = _PROFILE.validate_python(detected).nodes
            kept = frozenset(node.name for node in nodes if node.pools)
            return Seen(_site(nodes, rooms_of(nodes), kept, state.addons))
        inventory = await self._memory.look(session, cluster_id)
        known = inventory.nodes.values()
        kept = frozenset(name for name, node in inventory.nodes.items() if node.is_kept)
        rooms = [room for node in known for room in node.rooms]
        return Seen(
            site=_site([node.profile for node in known], rooms, kept, state.addons),
            asked=Asked(state.cpu_requested, state.memory_requested_bytes),
            copies=_copies(inventory.pods, self._namespace),
            inventory=inventory,
        )


_STATE: Final = (
    select(
        InventoryState.synced,
        InventoryState.cpu_requested,
        InventoryState.memory_requested_bytes,
        select(func.array_agg(ClusterAddon.name))
        .where(ClusterAddon.cluster_id == Cluster.id, ClusterAddon.state == AddonState.READY)
        .scalar_subquery()
        .label("addons"),
    )
    .select_from(Cluster)
    .outerjoin(InventoryState, InventoryState.cluster_id == Cluster.id)
)


def _site(
    nodes: Iterable[NodeProfile], rooms: Iterable[Room], kept: frozenset[str], addons: Sequence[AddonName] | None
) -> Site:
    present = set(addons or ())
    return Site(
        rooms=tuple(rooms),
        nodes=tuple(nodes),
        kept=kept,
        has_pod_monitors=AddonName.PROMETHEUS in present,
        runtime_class="nvidia" if AddonName.GPU_OPERATOR in present else "",
    )


def _copies(pods: Iterable[Holder], namespace: str) -> dict[str, list[Holder]]:
    copies: dict[str, list[Holder]] = defaultdict(list)
    for pod in pods:
        if pod.release is not None and pod.request.namespace == namespace:
            copies[pod.release].append(pod)
    return dict(copies)


async def _promised(session: ReadSession, cluster_id: UUID, seen: Seen, *, but: UUID | None) -> Promised:
    """What all deployments but one are still to get. One that is changing may go back to where it comes from."""
    promised = Promised()
    for row in await session.execute(_PROMISES.where(Deployment.cluster_id == cluster_id, Deployment.id != but)):
        asked = _demand(seen.site, row.config, row.limits, row.runtime, row.facts)
        is_other = row.former_revision not in {None, row.revision}
        surplus = int(row.strategy is not None and is_other and surges({"strategy": row.strategy}))
        ends = [End(asked, row.replicas_desired, surplus, is_other=is_other)]
        if row.former_revision is not None:
            former = _demand(seen.site, row.former_config, row.former_limits, row.runtime, row.facts)
            ends.append(End(former, row.former_replicas, is_other=is_other))
        promised.add(str(row.id), ends, seen.copies.get(row.helm_release, ()), seen.site.rooms)
    return promised


def _make_promises() -> Select[Any]:
    current, former = aliased(DeploymentRevision), aliased(DeploymentRevision)
    works = Operation.kind.in_(_CHANGES) & Operation.status.not_in(FINISHED)
    # By then the old copies are gone, and the way back makes none ahead of others.
    is_up = exists().where(
        OperationStep.operation_id == Operation.id,
        OperationStep.name == SMOKE_TEST.name,
        OperationStep.status != StepStatus.PENDING,
    )
    number = Operation.payload["previous_revision"].as_integer()
    is_in_cluster = func.coalesce(Deployment.error["left"].contains(["install_release"]), false())
    # Its first start failed, and nothing of it is in the cluster. Of what is half removed nobody knows what is.
    is_withdrawn = (
        (Deployment.status == DeploymentStatus.FAILED)
        & (func.jsonb_array_length(Deployment.endpoints) == 0)
        & not_(is_in_cluster)
        & not_(Deployment.half_removed)
    )
    limits = ("resources", "limits")
    return (
        select(
            Deployment.id,
            Deployment.helm_release,
            Deployment.runtime,
            Deployment.revision,
            Deployment.replicas_desired,
            # As text: what is known by its text is not read again.
            cast(Deployment.config, Text).label("config"),
            cast(Deployment.model_facts, Text).label("facts"),
            current.values[limits].label("limits"),
            case((former.number.is_not(None) & not_(is_up), current.values["strategy"])).label("strategy"),
            former.number.label("former_revision"),
            cast(former.config, Text).label("former_config"),
            former.values[limits].label("former_limits"),
            Operation.payload["previous_replicas"].as_integer().label("former_replicas"),
        )
        .join(current, (current.deployment_id == Deployment.id) & (current.number == Deployment.revision))
        .outerjoin(Operation, (Operation.subject_id == Deployment.id) & works)
        .outerjoin(former, (former.deployment_id == Deployment.id) & (former.number == number))
        .where(Deployment.status.not_in(_GONE), not_(is_withdrawn))
        .order_by(Deployment.created_at)
    )


_PROMISES: Final = _make_promises()


def _demand(
    site: Site, config: str, limits: Mapping[str, Any] | None, runtime: RuntimeType, facts: str | None
) -> AnyDemand:
    hardware = site.hardware(_config(config))
    return _demand_on(hardware, config, resource_in({"resources": {"limits": limits}}), runtime, facts)


@lru_cache(_REMEMBERED)
def _config(document: str) -> DeploymentConfig:
    return DeploymentConfig.model_validate(orjson.loads(document))


@lru_cache(_REMEMBERED)
def _demand_on(
    hardware: Hardware, config: str, resource: str | None, runtime: RuntimeType, facts: str | None
) -> AnyDemand:
    known = orjson.loads(facts) if facts else None
    return _of_one(demand_of(_config(config), runtime, _facts(known), hardware), resource)


def demand_in(row: Deployment, config: DeploymentConfig, values: Mapping[str, Any], site: Site) -> AnyDemand:
    """What one copy of the deployment asks for with this config, by the name that its values use."""
    return _of_one(demand_of(config, row.runtime, facts_of(row), site.hardware(config)), resource_in(values))


def _of_one(demand: AnyDemand, resource: str | None) -> AnyDemand:
    if isinstance(demand, Demand):
        return replace(demand, replicas=1, resource=resource)
    return replace(demand, replicas=1)


async def hold(session: ReadSession, cluster_id: UUID) -> None:
    """One decision at a time on a cluster: until the caller's transaction ends, others wait here."""
    key = f"capacity:{cluster_id}"
    await session.execute(text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})


def facts_of(row: Deployment) -> ModelFacts | None:
    """What is known of its model."""
    return _facts(row.model_facts)


def _facts(document: Mapping[str, Any] | None) -> ModelFacts | None:
    return ModelFacts.of(document) if document else None


def as_facts(fit: Fit) -> dict[str, Any]:
    """As callers see it."""
    facts = asdict(fit)
    return {**facts, "verdict": fit.verdict.value}
