"""Keeps the status of deployments true: one replica of the service watches each cluster that has some.

Which replica that is, the inventory's leases decide: whoever keeps a cluster's inventory watches its deployments too.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import select

from budcluster.cluster.access import ClusterAccess
from budcluster.deployment.logs.attempts import Attempts
from budcluster.deployment.models import Deployment
from budcluster.deployment.watching.cluster_eye import ClusterEye
from budcluster.deployment.watching.standing import Standings
from budcluster.deployment.watching.status import Damping
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database, DatabaseUnavailable

log = structlog.get_logger(__name__)

ROUND_S: Final = 2.0
"""Between two looks at which clusters have deployments."""


@dataclass(frozen=True)
class _Watched:
    eye: ClusterEye
    namespaces: frozenset[str]
    deployments: dict[UUID, int]
    """Version of each deployment's row when it was looked at last."""
    task: asyncio.Task[None]


class DeploymentWatcher:
    """One replica's part."""

    def __init__(
        self,
        database: Database,
        access: ClusterAccess,
        attempts: Attempts,
        clock: Clock,
        *,
        kept: Callable[[], frozenset[UUID]],
        damping: Damping | None = None,
    ) -> None:
        """`kept` are the clusters that this replica is to watch now."""
        self._database = database
        self._access = access
        self._attempts = attempts
        self._clock = clock
        self._kept = kept
        self._damping = damping or Damping()
        self._watched: dict[UUID, _Watched] = {}

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                with contextlib.suppress(DatabaseUnavailable):
                    await self._round()
                await asyncio.sleep(ROUND_S)
        finally:
            await self._end(list(self._watched))

    async def _round(self) -> None:
        there = await self._deployments()
        wanted = {cluster_id: rows for cluster_id, rows in there.items() if cluster_id in self._kept()}
        stale = [
            one
            for one, watched in self._watched.items()
            if one not in wanted or watched.task.done() or watched.namespaces != _namespaces(wanted[one])
        ]
        await self._end(stale)
        for cluster_id, rows in wanted.items():
            if cluster_id not in self._watched:
                self._watched[cluster_id] = self._begin(cluster_id, _namespaces(rows))
            watched = self._watched[cluster_id]
            for deployment_id, (_, version) in rows.items():
                # An operation that ended changed the row, not the cluster.
                if watched.deployments.get(deployment_id) != version:
                    watched.deployments[deployment_id] = version
                    watched.eye.look_at(deployment_id)

    async def _deployments(self) -> dict[UUID, dict[UUID, tuple[str, int]]]:
        found: dict[UUID, dict[UUID, tuple[str, int]]] = {}
        async with self._database.reading() as session:
            rows = await session.execute(
                select(Deployment.cluster_id, Deployment.id, Deployment.namespace, Deployment.version)
            )
            for cluster_id, deployment_id, namespace, version in rows:
                found.setdefault(cluster_id, {})[deployment_id] = (namespace, version)
        return found

    def _begin(self, cluster_id: UUID, namespaces: frozenset[str]) -> _Watched:
        eye = ClusterEye(
            lambda: self._access.open(cluster_id, operation="deployments"),
            Standings(self._database, cluster_id, self._clock, self._damping),
            self._attempts,
            namespaces,
        )
        task = asyncio.create_task(_logged(eye, cluster_id), name="deployments")
        return _Watched(eye, namespaces, {}, task)

    async def _end(self, cluster_ids: list[UUID]) -> None:
        tasks = [self._watched.pop(cluster_id).task for cluster_id in cluster_ids]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _namespaces(rows: dict[UUID, tuple[str, int]]) -> frozenset[str]:
    return frozenset(namespace for namespace, _ in rows.values())


async def _logged(eye: ClusterEye, cluster_id: UUID) -> None:
    with structlog.contextvars.bound_contextvars(cluster_id=str(cluster_id)):
        try:
            await eye.run()
        except Exception:
            log.exception("deployments.watch_failed")
