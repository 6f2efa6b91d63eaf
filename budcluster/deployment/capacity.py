"""What a cluster has room for: its hardware as last seen, and the deployments that were accepted since."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import func, select, text

from budcluster.cluster.models import Cluster
from budcluster.deployment.fit import Demand, Fit, PoolReason, Verdict, check_fit
from budcluster.deployment.model_facts import ModelFacts
from budcluster.deployment.models import Deployment, DeploymentStatus, RuntimeType
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import Site, demand_of
from budcluster.deployment.rooms import rooms_of
from budcluster.hardware.inventory import freshness, profile
from budcluster.hardware.models import AddonName, AddonState, ClusterAddon, InventoryGpuPod
from budcluster.hardware.profile import HardwareProfile, NodeProfile
from budcluster.kit.database import ReadSession

_PROFILE: Final = TypeAdapter(HardwareProfile)
_GONE: Final = (DeploymentStatus.DELETING, DeploymentStatus.PARKED)
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Look:
    """A cluster as it was seen."""

    site: Site
    placed: Mapping[str, int] = field(default_factory=dict)
    """Copies that the look has counted already, by release."""


async def look(session: ReadSession, cluster: Cluster, namespace: str) -> Look:
    """What is free now; before the inventory is complete, what was free when the hardware was detected."""
    fresh = await freshness(session, cluster.id)
    if fresh.complete:
        nodes = (await profile(session, cluster.id)).nodes
        return Look(await _site(session, cluster.id, nodes), await _placed(session, cluster.id, namespace))
    detected = await session.scalar(select(Cluster.hardware_profile).where(Cluster.id == cluster.id))
    known = _PROFILE.validate_python(detected)
    return Look(await _site(session, cluster.id, known.nodes))


async def _site(session: ReadSession, cluster_id: UUID, nodes: Sequence[NodeProfile]) -> Site:
    present = await session.scalars(
        select(ClusterAddon.name).where(ClusterAddon.cluster_id == cluster_id, ClusterAddon.state == AddonState.READY)
    )
    addons = set(present)
    return Site(
        rooms=tuple(rooms_of(nodes)),
        nodes=tuple(nodes),
        has_pod_monitors=AddonName.PROMETHEUS in addons,
        runtime_class="nvidia" if AddonName.GPU_OPERATOR in addons else "",
    )


async def _placed(session: ReadSession, cluster_id: UUID, namespace: str) -> dict[str, int]:
    counted = (
        select(InventoryGpuPod.release, func.count())
        .where(
            InventoryGpuPod.cluster_id == cluster_id,
            InventoryGpuPod.namespace == namespace,
            InventoryGpuPod.node.is_not(None),
            InventoryGpuPod.release.is_not(None),
        )
        .group_by(InventoryGpuPod.release)
    )
    return {str(release): count for release, count in await session.execute(counted)}


async def hold(session: ReadSession, cluster_id: UUID) -> None:
    """One decision at a time on a cluster: until the caller's transaction ends, others wait here."""
    key = f"capacity:{cluster_id}"
    await session.execute(text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})


async def waiting_on(session: ReadSession, cluster_id: UUID, seen: Look, *, but: UUID | None = None) -> list[Demand]:
    """The demands of copies that were accepted and that the look has not counted yet."""
    rows = select(Deployment).where(Deployment.cluster_id == cluster_id, Deployment.status.not_in(_GONE))
    demands = []
    for row in await session.scalars(rows.order_by(Deployment.created_at)):
        copies = row.replicas_desired - seen.placed.get(row.helm_release, 0)
        if row.id == but or copies <= 0 or _is_withdrawn(row):
            continue
        demand = demand_of(DeploymentConfig.model_validate(row.config), row.runtime, facts_of(row), seen.site)
        if demand is not None:
            demands.append(replace(demand, replicas=copies))
    return demands


def _is_withdrawn(row: Deployment) -> bool:
    """Its first start failed, and nothing of it is in the cluster."""
    return row.status is DeploymentStatus.FAILED and not row.endpoints


def facts_of(row: Deployment) -> ModelFacts | None:
    """What is known of its model."""
    return ModelFacts(**row.model_facts) if row.model_facts else None


def decide(
    config: DeploymentConfig,
    runtime: RuntimeType,
    facts: ModelFacts | None,
    site: Site,
    *,
    replicas: int,
    waiting: Sequence[Demand] = (),
) -> Fit:
    """Whether the cluster has room for so many copies."""
    demand = demand_of(config, runtime, facts, site)
    if demand is not None:
        return check_fit(replace(demand, replicas=replicas), site.rooms, waiting=waiting)
    return _fit_on_processors(config, facts, site)


def _fit_on_processors(config: DeploymentConfig, facts: ModelFacts | None, site: Site) -> Fit:
    """Without GPUs only the nodes' memory is looked at."""
    needed = facts.loaded_bytes(config.quantization) * 5 // 4 if facts else 0
    usable = [node for node in site.nodes if node.schedulable and node.allocatable_memory_bytes >= needed]
    reasons = tuple(
        PoolReason(node.instance_type or node.name, 1, node.reasons or (f"it has less than {needed // _MIB} MiB",))
        for node in site.nodes
        if node not in usable
    )
    verdict = Verdict.NO if not usable else Verdict.YES if facts else Verdict.UNKNOWN
    names = tuple(node.name for node in usable[:1])
    warnings = () if facts else ("the model's config is not known, so its size is not known either",)
    return Fit(verdict, names, () if usable else reasons, (), needed // _MIB if facts else None, warnings)


def as_facts(fit: Fit) -> dict[str, Any]:
    """As callers see it."""
    facts = asdict(fit)
    return {**facts, "verdict": fit.verdict.value}
