"""What activities read and write of a deployment's row: short sessions, guarded writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, update

from budcluster.deployment import repository
from budcluster.deployment.contracts import RemovalPayload
from budcluster.deployment.errors import DeploymentNotFound
from budcluster.deployment.models import Deployment, DeploymentRevision, DeploymentStatus
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import with_replicas
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database
from budcluster.kube.diagnosis import Finding
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.models import Operation, OperationStep

_LONGEST_TEXT: Final = 1000


@dataclass(frozen=True)
class DeploymentFacts:
    """What a step needs of the row."""

    id: UUID
    cluster_id: UUID
    name: str
    namespace: str
    release: str
    is_being_deleted: bool = False
    """Whether its DELETE waits or works."""


@dataclass(frozen=True)
class RevisionFacts:
    """What a step needs of a revision."""

    config: DeploymentConfig
    values: dict[str, Any]


class Records:
    """The rows of deployments, for activities."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def facts(self, deployment_id: UUID) -> DeploymentFacts:
        """The deployment. Raises DeploymentNotFound."""
        async with self._database.reading() as session:
            row = await repository.get_deployment(session, deployment_id)
        is_being_deleted = row.status is DeploymentStatus.DELETING
        return DeploymentFacts(
            row.id, row.cluster_id, row.name, row.namespace, row.helm_release, is_being_deleted=is_being_deleted
        )

    async def revision(self, deployment_id: UUID, number: int, *, replicas: int) -> RevisionFacts:
        """A revision, its values for so many copies. Raises RevisionNotFound."""
        async with self._database.reading() as session:
            row = await repository.get_revision(session, deployment_id, number)
        return RevisionFacts(DeploymentConfig.model_validate(row.config), with_replicas(row.values, replicas))

    async def started_at(self, payload: OperationPayload, step: str) -> datetime:
        """When this attempt began the step; a process that takes it over goes on from there."""
        wanted = select(OperationStep.started_at).where(
            OperationStep.operation_id == payload.operation_id, OperationStep.name == step
        )
        async with self._database.reading() as session:
            return (await session.scalars(wanted)).one_or_none() or self._clock.now()

    async def attempt_began_at(self, payload: OperationPayload) -> datetime:
        """When this attempt of the operation began."""
        wanted = select(Operation.started_at).where(Operation.id == payload.operation_id)
        async with self._database.reading() as session:
            return (await session.scalars(wanted)).one_or_none() or self._clock.now()

    async def as_asked(self, payload: RemovalPayload) -> RemovalPayload:
        """The payload with what was asked for since: a DELETE joins the one that is under way."""
        wanted = select(Operation.payload).where(Operation.id == payload.operation_id)
        async with self._database.reading() as session:
            asked = await session.scalar(wanted)
        return RemovalPayload.model_validate({**payload.model_dump(), **(asked or {})})

    async def begin(self, deployment_id: UUID) -> None:
        """PENDING becomes DEPLOYING; any other status stays."""
        await self._change(deployment_id, only=DeploymentStatus.PENDING, status=DeploymentStatus.DEPLOYING)

    async def saw(self, deployment_id: UUID, *, ready: int) -> None:
        """Note how many copies answer."""
        await self._change(deployment_id, replicas_ready=ready, servable=ready > 0)

    async def diagnosed(self, deployment_id: UUID, finding: Finding | None) -> None:
        """Note why it does not serve; None when nothing is wrong."""
        async with self._database.reading() as session:
            before = (await repository.get_deployment(session, deployment_id)).diagnosis
        diagnosis = document(finding, before=before, now=self._clock.now().isoformat())
        await self._change(deployment_id, diagnosis=diagnosis)

    async def reached(self, deployment_id: UUID, endpoints: list[dict[str, str]]) -> None:
        """Note where it is reached."""
        await self._change(deployment_id, endpoints=endpoints)

    async def withdrew(self, deployment_id: UUID) -> None:
        """Note that parts of it may be missing from now on, so that nothing is promised."""
        await self._change(deployment_id, half_removed=True, endpoints=[], servable=False)

    async def served(self, deployment_id: UUID, revision: int) -> None:
        """Note that a revision answered."""
        now = self._clock.now()
        mine = (DeploymentRevision.deployment_id == deployment_id, DeploymentRevision.number == revision)
        async with self._database.writing() as session:
            await session.execute(
                update(DeploymentRevision).where(*mine, DeploymentRevision.served_at.is_(None)).values(served_at=now)
            )

    async def _change(self, deployment_id: UUID, *, only: DeploymentStatus | None = None, **values: Any) -> None:
        mine = [Deployment.id == deployment_id, *([Deployment.status == only] if only else [])]
        async with self._database.writing() as session:
            found = await session.execute(
                update(Deployment)
                .where(*mine)
                .values(**values, version=Deployment.version + 1)
                .returning(Deployment.id)
            )
            if found.one_or_none() is None and only is None:
                raise DeploymentNotFound(deployment_id)


def document(finding: Finding | None, *, before: dict[str, Any] | None, now: str) -> dict[str, Any] | None:
    """A finding as a row keeps it. One that is known already keeps its time."""
    if finding is None:
        return None
    found: dict[str, Any] = {
        "type": finding.type,
        "detail": finding.detail[:_LONGEST_TEXT],
        "fix": finding.fix[:_LONGEST_TEXT],
        "pod": finding.pod or None,
        "container": finding.container,
        "exit_code": finding.exit_code,
        "lines": list(finding.lines),
        "suggestion": finding.suggestion,
    }
    is_same = before is not None and before.get("type") == finding.type
    return {**found, "since": before["since"] if is_same and before and "since" in before else now}


def endpoints_of(release: str, namespace: str, values: Mapping[str, Any]) -> list[dict[str, str]]:
    """Where the API is reached: inside the cluster, and by its host name where it has one."""
    inside = {"kind": "cluster", "url": f"http://{release}.{namespace}.svc.cluster.local/v1"}
    ingress = values["ingress"]
    if not ingress["enabled"]:
        return [inside]
    scheme = "https" if (ingress.get("tls") or {}).get("enabled") else "http"
    return [inside, {"kind": "ingress", "url": f"{scheme}://{ingress['host']}/v1"}]
