"""Writes what a cluster shows of its deployments into their rows: under the row's lock, and only what changed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import exists, func, select, update

from budcluster.audit import services as audit
from budcluster.deployment import repository
from budcluster.deployment.lifecycle import MOVES
from budcluster.deployment.models import Deployment, DeploymentRevision, DeploymentStatus
from budcluster.deployment.records import document, endpoints_of
from budcluster.deployment.watching.status import Damping, Known, Observed, Seen, observe, settle
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database, ReadSession, WriteSession
from budcluster.operations import outbox
from budcluster.operations.models import Claim, Operation, SubjectType

log = structlog.get_logger(__name__)


@dataclass
class _Shown:
    """What the cluster shows of a deployment, and since when."""

    status: DeploymentStatus | None
    since: float


class Standings:
    """The rows of one cluster's deployments."""

    def __init__(self, database: Database, cluster_id: UUID, clock: Clock, damping: Damping) -> None:
        self._database = database
        self._cluster_id = cluster_id
        self._clock = clock
        self._damping = damping
        self._shown: dict[UUID, _Shown] = {}
        self._strangers: set[UUID] = set()

    async def all_ids(self) -> set[UUID]:
        """Deployments of this cluster. Raises DatabaseUnavailable."""
        async with self._database.reading() as session:
            return set(await session.scalars(select(Deployment.id).where(Deployment.cluster_id == self._cluster_id)))

    async def write(self, deployment_id: UUID, see: Callable[[], Seen]) -> float | None:
        """Bring the row up to date; seconds after which to look again, if time may change the answer.

        `see` is called once the row is held: who wrote it meanwhile may have seen more than was known before.
        Raises DatabaseUnavailable.
        """
        async with self._database.writing() as session:
            mine = select(Deployment).where(Deployment.id == deployment_id, Deployment.cluster_id == self._cluster_id)
            deployment = (await session.scalars(mine.with_for_update())).one_or_none()
            if deployment is None:
                self._note_stranger(deployment_id, see())
                return None
            known, seen = await _known(session, deployment), see()
            observed = observe(known, seen)
            status, again_s = settle(known, observed, self._damping, lasted_s=self._lasted(deployment_id, observed))
            await self._apply(session, deployment, observed, status, withdrawn=seen.workload is None)
        return again_s

    def _lasted(self, deployment_id: UUID, observed: Observed) -> float:
        now = asyncio.get_running_loop().time()
        shown = self._shown.get(deployment_id)
        if shown is None or shown.status is not observed.status:
            shown = self._shown[deployment_id] = _Shown(observed.status, now)
        return now - shown.since

    def _note_stranger(self, deployment_id: UUID, seen: Seen) -> None:
        self._shown.pop(deployment_id, None)
        if seen.workload is not None and deployment_id not in self._strangers:
            self._strangers.add(deployment_id)
            log.warning(
                "deployment.unknown_found",
                deployment_id=str(deployment_id),
                release=str(seen.workload["metadata"]["name"]),
            )

    async def _apply(
        self,
        session: WriteSession,
        deployment: Deployment,
        observed: Observed,
        status: DeploymentStatus,
        *,
        withdrawn: bool,
    ) -> None:
        now = self._clock.now().isoformat()
        diagnosis = document(observed.finding, before=deployment.diagnosis, now=now)
        if withdrawn and diagnosis is None:
            # A failed start was taken back: nothing is healed by that, and the cause must stay readable.
            diagnosis = deployment.diagnosis
        values: dict[str, Any] = {
            "replicas_ready": observed.ready, "servable": observed.servable, "diagnosis": diagnosis
        }  # fmt: skip
        before = deployment.status
        if status is not before and status in MOVES[before]:
            # The version is for what callers may overwrite; copies that come and go are not.
            values |= {"status": status, "error": _error(deployment, status, diagnosis, now)}
            values["version"] = deployment.version + 1
            if status is DeploymentStatus.RUNNING and not deployment.endpoints:
                values["endpoints"] = await _came_up_late(session, deployment)
        changed = {name: value for name, value in values.items() if getattr(deployment, name) != value}
        if not changed:
            return
        await session.execute(update(Deployment).where(Deployment.id == deployment.id).values(changed))
        kind = diagnosis["type"] if diagnosis else None
        if "status" in changed:
            facts = {"from": before.value, "to": status.value, "cause": kind}
            await audit.record(
                session,
                actor=audit.SYSTEM,
                action="deployment.status_observed",
                subject_type="deployment",
                subject_id=deployment.id,
                subject_name=deployment.name,
                facts=facts,
            )
            await outbox.tell(
                session,
                SubjectType.DEPLOYMENT,
                deployment.id,
                name=deployment.name,
                change="status_changed",
                facts=facts,
            )
        log.info(
            "deployment.observed",
            deployment_id=str(deployment.id),
            status=values.get("status", before).value,
            ready=observed.ready,
            servable=observed.servable,
            diagnosis=kind,
        )


async def _known(session: ReadSession, deployment: Deployment) -> Known:
    holding = exists().where(Operation.subject_id == deployment.id, Operation.claim == Claim.HOLDING)
    held = bool(await session.scalar(select(holding)))
    is_brought_back = held and deployment.status is not DeploymentStatus.DELETING
    return Known(
        status=deployment.status,
        replicas_desired=deployment.replicas_desired,
        held=held,
        failed_by_operation=bool((deployment.error or {}).get("operation_id")),
        half_removed=deployment.half_removed and not is_brought_back,
    )


async def _came_up_late(session: WriteSession, deployment: Deployment) -> list[dict[str, str]]:
    """Its first start failed, could not be taken back, and yet it serves now: note that, and say where."""
    mine = DeploymentRevision.deployment_id == deployment.id, DeploymentRevision.number == deployment.revision
    await session.execute(
        update(DeploymentRevision).where(*mine, DeploymentRevision.served_at.is_(None)).values(served_at=func.now())
    )
    revision = await repository.get_revision(session, deployment.id, deployment.revision)
    return endpoints_of(deployment.helm_release, deployment.namespace, revision.values)


def _error(
    deployment: Deployment, status: DeploymentStatus, diagnosis: dict[str, Any] | None, now: str
) -> dict[str, Any] | None:
    if status is not DeploymentStatus.FAILED:
        return None
    cause = diagnosis or {
        "type": "not-ready",
        "detail": f"No copy of {deployment.name} answers.",
        "fix": "Look at its logs: GET /deployments/{id}/logs.",
    }
    return {"type": cause["type"], "detail": cause["detail"], "next_step": cause["fix"], "step": None, "since": now}
