"""Looks at every READY cluster twice a minute, and writes its health down when it has changed."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert

from budcluster.audit import services as audit
from budcluster.cluster.access import ClusterAccess, NoCredential
from budcluster.cluster.models import Cluster, ClusterHealth, ClusterStatus
from budcluster.hardware import inventory
from budcluster.hardware.models import AddonState, ClusterAddon, InventoryNode
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database, DatabaseUnavailable, ReadSession, WriteSession
from budcluster.kit.errors import DomainError
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Forbidden, KubeError, NotFound, Unauthorized
from budcluster.kube.refusals import KubeconfigRefused
from budcluster.kube.resources import DAEMON_SETS, DEPLOYMENTS
from budcluster.monitoring.models import ClusterCheck
from budcluster.monitoring.verdict import Sight, damped, verdict
from budcluster.operations import outbox
from budcluster.operations.models import SubjectType
from budcluster.operations.periodic import Job

log = structlog.get_logger(__name__)

_EVERY: Final = timedelta(seconds=30)
_DEADLINE_S: Final = 15.0
"""For one cluster."""
_AT_ONCE: Final = 256
"""Clusters looked at: dead ones cost their whole deadline, and twice as many must fit into one interval."""
_AT_ONCE_STORED: Final = 8
"""Of them, those that use the database at the same moment."""
_REFUSED: Final = (
    "The cluster answers, and does not accept the service's account any more: the account was removed, or another "
    "budcluster has taken the cluster over."
)
_SHRUNK: Final = text("""
    select node.name
    from clusters as cluster
    cross join lateral jsonb_array_elements(cluster.hardware_profile -> 'nodes') as detected (value)
    join inventory_nodes as node on node.cluster_id = cluster.id and node.name = detected.value ->> 'name'
    where cluster.id = :cluster_id and node.gpu_count < jsonb_array_length(detected.value -> 'gpus')
""")


class HealthChecks:
    """Looking at clusters. Run it in one replica at a time."""

    def __init__(
        self, database: Database, access: ClusterAccess, clock: Clock, *, deadline_s: float = _DEADLINE_S
    ) -> None:
        self._database = database
        self._access = access
        self._clock = clock
        self._deadline_s = deadline_s
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._turns = asyncio.Semaphore(_AT_ONCE_STORED)

    def job(self) -> Job:
        """The periodic job that does it."""
        return Job("monitoring.health", _EVERY, self.run)

    async def run(self) -> str:
        """Look at every READY cluster once. Raises DatabaseUnavailable."""
        async with self._database.reading() as session:
            found = select(Cluster.id).where(
                Cluster.status == ClusterStatus.READY, Cluster.kubeconfig_encrypted.is_not(None)
            )
            ready = (await session.scalars(found)).all()
        async with asyncio.TaskGroup() as group:
            for cluster_id in ready:
                group.create_task(self._check(cluster_id))
        return f"{len(ready)} clusters looked at"

    async def _check(self, cluster_id: UUID) -> None:
        async with self._places:
            try:
                sight = await self._look(cluster_id)
                async with self._turns, self._database.writing() as session:
                    await self._write(session, cluster_id, sight)
            except DatabaseUnavailable:
                raise
            except Exception:
                # One cluster that surprises us must not keep the others from being looked at.
                log.exception("health.check_failed", cluster_id=str(cluster_id))

    async def _look(self, cluster_id: UUID) -> Sight:
        try:
            async with self._turns:
                async with self._database.reading() as session:
                    stored, addons = await _stored(session, cluster_id)
                kubeconfig = await self._access.kubeconfig(cluster_id, operation="health")
            async with asyncio.timeout(self._deadline_s), self._access.connect(kubeconfig) as client:
                version = await client.read("/version")
                return replace(
                    stored,
                    kubernetes_version=_named(version),
                    credential_expires_at=kubeconfig.expires_at,
                    certificate_expires_at=client.certificate_ends_at,
                    failing_addons=await _failing(client, addons),
                )
        except DatabaseUnavailable:
            raise
        except TimeoutError:
            return Sight(unreachable=f"The cluster's API server took longer than {self._deadline_s:g} s to answer.")
        except Unauthorized:
            return Sight(refused=_REFUSED)
        except (KubeError, NoCredential, KubeconfigRefused) as error:
            return Sight(unreachable=str(error))
        except DomainError as error:
            return Sight(unreachable=error.detail)

    async def _write(self, session: WriteSession, cluster_id: UUID, sight: Sight) -> None:
        now = self._clock.now()
        found = await session.execute(
            select(Cluster.name, Cluster.health, Cluster.health_reasons, Cluster.kubernetes_version)
            .where(Cluster.id == cluster_id, Cluster.status == ClusterStatus.READY)
            .with_for_update()
        )
        row = found.one_or_none()
        if row is None:
            return  # it has left READY meanwhile
        name, shown, shown_reasons, version = row
        seen, reasons = verdict(sight, now=now)
        health = damped(shown, seen, times=await self._times(session, cluster_id, seen))
        values: dict[str, Any] = {}
        if health is seen and (as_json := [reason.as_json() for reason in reasons]) != shown_reasons:
            values["health_reasons"] = as_json
        if health is not shown:
            values |= {"health": health, "health_since": now}
            facts = {"from": shown.value, "to": health.value, "reasons": [reason.code for reason in reasons]}
            await _tell(session, cluster_id, name, "health_changed", facts)
        if sight.kubernetes_version not in {None, version}:
            values["kubernetes_version"] = sight.kubernetes_version
            await _tell(session, cluster_id, name, "version_changed", {"from": version, "to": sight.kubernetes_version})
        if values:
            # All this comes by itself: it is no change that a client's own could collide with.
            await session.execute(
                update(Cluster).where(Cluster.id == cluster_id).values(**values, updated_at=Cluster.updated_at)
            )

    async def _times(self, session: WriteSession, cluster_id: UUID, seen: ClusterHealth) -> int:
        """How often in a row this was seen, this time included."""
        before = await session.get(ClusterCheck, cluster_id)
        times = before.times + 1 if before is not None and before.verdict is seen else 1
        values = {"verdict": seen, "times": times, "checked_at": self._clock.now()}
        await session.execute(
            insert(ClusterCheck)
            .values(cluster_id=cluster_id, **values)
            .on_conflict_do_update(index_elements=[ClusterCheck.cluster_id], set_=values)
        )
        return times


async def _tell(session: WriteSession, cluster_id: UUID, name: str, change: str, facts: dict[str, Any]) -> None:
    action = f"cluster.{change}"
    await audit.record(
        session,
        actor=audit.SYSTEM,
        action=action,
        subject_type="cluster",
        subject_id=cluster_id,
        subject_name=name,
        facts=facts,
    )
    await outbox.tell(session, SubjectType.CLUSTER, cluster_id, name=name, change=change, facts=facts)
    log.info(action, cluster_id=str(cluster_id), **facts)


def _named(answer: Mapping[str, Any]) -> str | None:
    """The version as a cluster's row keeps it."""
    name = answer.get("gitVersion")
    return name[:64] if isinstance(name, str) and name.isascii() and name.isprintable() and name else None


async def _stored(session: ReadSession, cluster_id: UUID) -> tuple[Sight, list[ClusterAddon]]:
    """What the inventory knows, and the add-ons to look after."""
    fresh = await inventory.freshness(session, cluster_id)
    sums = await inventory.totals(session, cluster_id)
    node = InventoryNode
    mine = select(node.name).where(node.cluster_id == cluster_id)
    addons = await session.scalars(select(ClusterAddon).where(ClusterAddon.cluster_id == cluster_id))
    sight = Sight(
        inventory_as_of=fresh.as_of,
        nodes=sums.nodes,
        not_ready=(await session.scalars(mine.where(~node.ready))).all(),
        pressed=(await session.scalars(mine.where(node.pressed))).all(),
        gpus=sums.gpus,
        gpus_unhealthy=sums.gpus - sums.gpus_healthy,
        nodes_with_fewer_gpus=await _shrunk(session, cluster_id),
    )
    return sight, list(addons)


async def _shrunk(session: ReadSession, cluster_id: UUID) -> list[str]:
    """Nodes that are still there and had more GPUs when the hardware was detected. The database compares."""
    return list(await session.scalars(_SHRUNK, {"cluster_id": cluster_id}))


async def _failing(client: ClusterClient, addons: list[ClusterAddon]) -> list[str]:
    """Add-ons that do not work, each with what is wrong."""
    failing = [f"{addon.name} failed: {addon.detail}" for addon in addons if addon.state is AddonState.FAILED]
    for addon in addons:
        if addon.state is AddonState.READY and addon.namespace and addon.release:
            dead = await _dead_workloads(client, addon.namespace, f"app.kubernetes.io/instance={addon.release}")
            failing += [f"{addon.name} does not run: no pod of {workload} is ready" for workload in dead]
    return failing


async def _dead_workloads(client: ClusterClient, namespace: str, selector: str) -> list[str]:
    dead = []
    for resource, wanted, ready in (
        (DEPLOYMENTS, ("spec", "replicas"), "readyReplicas"),
        (DAEMON_SETS, ("status", "desiredNumberScheduled"), "numberReady"),
    ):
        try:
            async for page in client.list_pages(resource, namespace=namespace, label_selector=selector):
                for item in page["items"]:
                    status = item.get("status") or {}
                    if (item.get(wanted[0]) or {}).get(wanted[1]) and not status.get(ready):
                        dead.append(f"{resource.plural[:-1]} {item['metadata']['name']}")
        except (NotFound, Forbidden):
            continue  # a narrow role cannot see them
    return dead
