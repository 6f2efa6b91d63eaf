"""Keeps the inventory of every READY cluster fresh: one replica lists, then watches, and writes what changed.

Every replica runs an `InventoryWatch`. Leases in the database share the clusters out; those of a replica that
died or froze are taken over by another one within seconds.
"""

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

import structlog
from sqlalchemy import select

from budcluster.cluster.access import ClusterAccess
from budcluster.cluster.models import Cluster, ClusterStatus
from budcluster.hardware.inventory_store import InventoryStore
from budcluster.kit.cancellation import innermost
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database, DatabaseUnavailable
from budcluster.monitoring.inventory_keeper import InventoryKeeper, Pace

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 4
"""Clusters taken in one round: other replicas get their share, and a start does not list everything at once."""


@dataclass(frozen=True)
class WatchPace:
    """How often things happen, in seconds."""

    round_s: float = 2.0
    """Between two looks at which clusters there are."""
    lease_s: float = 20.0
    rest_s: float = 30.0
    """After a failure of the service itself, until it is tried again by whichever replica."""
    keeper: Pace = field(default_factory=Pace)


class InventoryWatch:
    """One replica's part in keeping inventories."""

    def __init__(
        self, database: Database, access: ClusterAccess, clock: Clock, *, pace: WatchPace | None = None
    ) -> None:
        self._database = database
        self._access = access
        self._clock = clock
        self._pace = pace or WatchPace()
        self._holder = f"{socket.gethostname()[:80]}:{os.getpid()}:{uuid4().hex[:8]}"
        self._kept: dict[UUID, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled; then all leases are given back."""
        try:
            while True:
                with contextlib.suppress(DatabaseUnavailable):
                    await self._round()
                await asyncio.sleep(self._pace.round_s)
        finally:
            await self._end(list(self._kept))

    @property
    def kept(self) -> frozenset[UUID]:
        """The clusters whose inventory this replica keeps."""
        return frozenset(cluster_id for cluster_id, task in self._kept.items() if not task.done())

    async def _round(self) -> None:
        async with self._database.reading() as session:
            found = await session.scalars(
                select(Cluster.id).where(
                    Cluster.status == ClusterStatus.READY, Cluster.kubeconfig_encrypted.is_not(None)
                )
            )
            wanted = set(found)
        await self._end([one for one, task in self._kept.items() if one not in wanted or task.done()])
        taken = 0
        for cluster_id in wanted - self._kept.keys():
            store = InventoryStore(
                self._database, cluster_id, holder=self._holder, lease=timedelta(seconds=self._pace.lease_s)
            )
            if taken < _AT_ONCE and await store.take():
                taken += 1
                self._kept[cluster_id] = asyncio.create_task(self._keep(cluster_id, store), name="inventory")

    async def _keep(self, cluster_id: UUID, store: InventoryStore) -> None:
        keeper = InventoryKeeper(
            store, lambda: self._access.open(cluster_id, operation="inventory"), self._clock, pace=self._pace.keeper
        )
        with structlog.contextvars.bound_contextvars(cluster_id=str(cluster_id)):
            try:
                await keeper.run()
            except Exception as error:
                log.exception("inventory.failed")
                with contextlib.suppress(DatabaseUnavailable):
                    await store.rest(_failure(error, self._pace.rest_s), pause=timedelta(seconds=self._pace.rest_s))
            finally:
                with contextlib.suppress(DatabaseUnavailable):
                    await asyncio.shield(store.give_back())

    async def _end(self, cluster_ids: list[UUID]) -> None:
        tasks = [self._kept.pop(cluster_id) for cluster_id in cluster_ids]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failure(error: Exception, rest_s: float) -> str:
    cause = type(innermost(error)).__name__
    return (
        f"The service failed on something that the cluster told ({cause}); its log says more. "
        f"It tries again every {rest_s:g} s."
    )
