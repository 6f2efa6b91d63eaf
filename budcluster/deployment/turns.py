"""Who decides about a cluster's room waits here for his turn, before he uses the database."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import UUID

from sqlalchemy import select

from budcluster.deployment.models import Deployment
from budcluster.kit.database import Database
from budcluster.kit.keyed_locks import KeyedLocks


class Turns:
    """One decision at a time about a cluster, within this process.

    `capacity.hold` says the same to other processes. Those of this one wait here, where no connection waits with them:
    enter a turn before the session is used, and leave it after the commit.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clusters: KeyedLocks[UUID] = KeyedLocks()

    def on(self, cluster_id: UUID) -> AbstractAsyncContextManager[None]:
        """A turn on a cluster."""
        return self._clusters.hold(cluster_id)

    async def after_others(self, cluster_id: UUID) -> None:
        """Return once everybody has been decided about who waits on the cluster now."""
        async with self.on(cluster_id):
            return

    @asynccontextmanager
    async def of(self, deployment_id: UUID) -> AsyncIterator[None]:
        """A turn on a deployment's cluster; at once where there is no such deployment, as whoever comes finds out."""
        where = select(Deployment.cluster_id).where(Deployment.id == deployment_id)
        async with self._database.reading() as session:
            cluster_id = await session.scalar(where)
        if cluster_id is None:
            yield
            return
        async with self.on(cluster_id):
            yield
