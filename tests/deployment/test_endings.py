"""What watches clusters ends when it is told to, also when a cluster is lost in that very moment."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from budcluster.deployment.logs.attempts import Attempts
from budcluster.deployment.watching.cluster_eye import ClusterEye
from budcluster.deployment.watching.standing import Standings
from budcluster.deployment.watching.status import Damping
from budcluster.hardware.inventory_store import InventoryStore
from budcluster.kit.clock import SystemClock
from budcluster.kube.door import Door
from budcluster.kube.errors import Unreachable
from budcluster.monitoring.inventory_keeper import InventoryKeeper, Pace
from tests.deployment.live import Live

Watching = Coroutine[Any, Any, None]


class Closing:
    """A cluster whose connection breaks when whoever uses it is told to end."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    @asynccontextmanager
    async def door(self) -> AsyncIterator[Door]:
        self.opened.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Unreachable("The connection was cut.") from None
        yield  # type: ignore[misc]


def eye(live: Live, closing: Closing) -> Watching:
    standings = Standings(live.database, live.cluster_id, SystemClock(), Damping())
    return ClusterEye(closing.door, standings, Attempts(live.database, live.vault), frozenset()).run()


async def keeper(live: Live, closing: Closing) -> None:
    store = InventoryStore(live.database, live.cluster_id, holder="test", lease=timedelta(minutes=1))
    assert await store.take()
    await InventoryKeeper(store, closing.door, SystemClock(), pace=Pace()).run()


@pytest.mark.parametrize("watch", [eye, keeper])
async def test_a_watcher_ends_although_its_cluster_is_lost_at_that_moment(live: Live, watch: Any) -> None:
    closing = Closing()
    task = asyncio.create_task(watch(live, closing))
    await closing.opened.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()
