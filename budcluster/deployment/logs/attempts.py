"""Keeps the logs of runs that failed, so that they can be read when their pods are gone."""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from budcluster.credentials.envelope import Owner
from budcluster.credentials.vault import Vault
from budcluster.deployment import repository
from budcluster.deployment.logs.errors import AttemptNotFound
from budcluster.deployment.logs.models import DeploymentAttempt
from budcluster.deployment.models import Deployment
from budcluster.kit.database import Database, ReadSession
from budcluster.kit.redaction import Redactor
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import KubeError
from budcluster.kube.resources import PODS
from budcluster.kube.times import moment

Json = Mapping[str, Any]

KEPT_LINES: Final = 2_000
KEPT_CHARACTERS: Final = 1024 * 1024
KEPT_ATTEMPTS: Final = 20
_SILENCE_S: Final = 15.0
"""A node that does not answer for so long has no log to give; the deployment's status waits for it."""
_COLUMN: Final = "deployment_attempts.log"
_REDACTOR: Final = Redactor()


@dataclass(frozen=True, slots=True)
class Ended:
    """A run of a container that ended with a failure."""

    pod: str
    pod_uid: str
    container: str
    restart: int
    exit_code: int
    reason: str
    started_at: datetime | None
    finished_at: datetime | None
    is_previous: bool
    """Whether its log is the container's previous one by now."""

    @property
    def key(self) -> tuple[str, str, int]:
        """Tells it from all others."""
        return self.pod_uid, self.container, self.restart


def ended_runs(pod: Json) -> Iterator[Ended]:
    """The failed runs that a pod's status tells of: at most the present and the previous one of each container."""
    for one in _statuses(pod):
        present, previous = _numbers(one)
        now = (one.get("state") or {}).get("terminated")
        before = (one.get("lastState") or {}).get("terminated")
        if now and now.get("exitCode"):
            yield _ended(pod, one, now, present, is_previous=False)
        if before and before.get("exitCode"):
            yield _ended(pod, one, before, previous, is_previous=True)


def _statuses(pod: Json) -> list[Json]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _numbers(status: Json) -> tuple[int, int]:
    """Of the runs that a container's present and its previous log are of; the same while it waits to start again."""
    restarts = int(status.get("restartCount") or 0)
    has_started = not {"running", "terminated"}.isdisjoint(status.get("state") or {})
    return restarts, max(restarts - 1, 0) if has_started else restarts


def _ended(pod: Json, status: Json, end: Json, restart: int, *, is_previous: bool) -> Ended:
    metadata = pod["metadata"]
    return Ended(
        pod=str(metadata["name"]),
        pod_uid=str(metadata["uid"])[:64],
        container=str(status["name"]),
        restart=restart,
        exit_code=int(end["exitCode"]),
        reason=str(end.get("reason") or "")[:128],
        started_at=moment(end.get("startedAt")),
        finished_at=moment(end.get("finishedAt")),
        is_previous=is_previous,
    )


async def last_lines(client: ClusterClient, namespace: str, ended: Ended) -> list[str]:
    """The end of its log, masked; nothing once only later runs have logs. Raises KubeError."""
    lines = await _read(client, namespace, ended)
    status = await _status_now(client, namespace, ended)
    if status is None:
        return lines
    present, previous = _numbers(status)
    if ended.restart == (previous if ended.is_previous else present):
        return lines
    # What was read may be a later run's already.
    if ended.restart == previous:
        return await last_lines(client, namespace, replace(ended, is_previous=True))
    return []


async def _status_now(client: ClusterClient, namespace: str, ended: Ended) -> Json | None:
    """Its container's, if the pod is still there and the cluster tells."""
    try:
        pod = await client.get(PODS, ended.pod, namespace=namespace)
    except KubeError:
        return None
    mine = (one for one in _statuses(pod) if one["name"] == ended.container)
    return next(mine, None) if pod["metadata"]["uid"] == ended.pod_uid else None


async def _read(client: ClusterClient, namespace: str, ended: Ended) -> list[str]:
    mask = _REDACTOR.lines().mask
    kept: deque[str] = deque()
    size = 0
    lines = client.log_lines(
        namespace,
        ended.pod,
        container=ended.container,
        previous=ended.is_previous,
        tail_lines=KEPT_LINES,
        silence_s=_SILENCE_S,
    )
    async with aclosing(lines):
        async for line in lines:
            kept.append(mask(line)[:KEPT_CHARACTERS])
            size += len(kept[-1]) + 1
            while size > KEPT_CHARACTERS:
                size -= len(kept.popleft()) + 1
    return list(kept)


class Attempts:
    """The kept runs."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def keep(self, deployment_id: UUID, ended: Ended, lines: list[str], *, finding: str | None) -> None:
        """Keep one, and let the oldest go. Keeping it again, or for a deployment that is gone, does nothing."""
        attempt_id = uuid4()
        log = await self._vault.seal_bulk("\n".join(lines).encode(), Owner(_COLUMN, attempt_id))
        row = {
            "id": attempt_id,
            "deployment_id": deployment_id,
            **{
                name: getattr(ended, name) for name in ("pod", "pod_uid", "container", "restart", "exit_code", "reason")
            },
            "started_at": ended.started_at,
            "finished_at": ended.finished_at,
            "finding": finding,
            "lines": len(lines),
            "log": log,
        }
        attempt = DeploymentAttempt
        mine = attempt.deployment_id == deployment_id
        latest = select(attempt.id).where(mine).order_by(attempt.kept_at.desc()).limit(KEPT_ATTEMPTS)
        async with self._database.writing() as session:
            # Held until the commit, so that it cannot go between the look and the insert.
            row_of = select(Deployment.id).where(Deployment.id == deployment_id)
            if await session.scalar(row_of.with_for_update(read=True, key_share=True)):
                await session.execute(insert(attempt).values(row).on_conflict_do_nothing())
                await session.execute(delete(attempt).where(mine, attempt.id.not_in(latest)))

    async def list(self, session: ReadSession, deployment_id: UUID) -> list[DeploymentAttempt]:
        """Newest first. Raises DeploymentNotFound."""
        await repository.get_deployment(session, deployment_id)
        attempt = DeploymentAttempt
        mine = select(attempt).where(attempt.deployment_id == deployment_id)
        return list(await session.scalars(mine.order_by(attempt.kept_at.desc())))

    async def read(self, deployment_id: UUID, attempt_id: UUID) -> str:
        """Its log. Raises DeploymentNotFound, AttemptNotFound, and what the vault raises."""
        async with self._database.reading() as session:
            await repository.get_deployment(session, deployment_id)
            attempt = await session.get(DeploymentAttempt, attempt_id)
        if attempt is None or attempt.deployment_id != deployment_id:
            raise AttemptNotFound
        return (await self._vault.open_bulk(attempt.log, Owner(_COLUMN, attempt_id))).text()
