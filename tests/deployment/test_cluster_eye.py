"""What one cluster's watch asks for again, and how often."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import select

from budcluster.deployment.logs.attempts import Attempts, Ended
from budcluster.deployment.logs.models import DeploymentAttempt
from budcluster.deployment.watching.cluster_eye import TRIES, ClusterEye
from budcluster.deployment.watching.standing import Standings
from budcluster.deployment.watching.status import Damping, Seen
from budcluster.kit.clock import SystemClock
from budcluster.kit.errors import Conflict
from budcluster.kube.door import Door
from sandbox.kubernetes.faults import Fault
from tests.deployment.live import NAMESPACE, Live, chatty, pod
from tests.waiting import until_true

TEN_MINUTES = 600.0


class Refusing(Attempts):
    """Refuses to keep the runs of the container `never` always, and those of `later` at the first try."""

    def __init__(self, live: Live) -> None:
        super().__init__(live.database, live.vault)
        self.tries = Counter[str]()

    async def keep(self, deployment_id: UUID, ended: Ended, lines: list[str], *, finding: str | None) -> None:
        self.tries[ended.container] += 1
        if ended.container == "never" or self.tries[ended.container] == 1:
            raise Conflict("Not now.")
        await super().keep(deployment_id, ended, lines, finding=finding)


class Counted(Standings):
    """Counts the looks."""

    looks = 0

    async def write(self, deployment_id: UUID, see: Callable[[], Seen]) -> float | None:
        self.looks += 1
        return await super().write(deployment_id, see)


class Visits:
    """The way to a cluster, and how often it was gone."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.number = 0

    @asynccontextmanager
    async def door(self) -> AsyncIterator[Door]:
        self.number += 1
        async with self._live.access.open(self._live.cluster_id, operation="deployments") as door:
            yield door


@asynccontextmanager
async def watching(
    live: Live, visits: Visits, attempts: Attempts, **pace: Any
) -> AsyncIterator[tuple[ClusterEye, Counted]]:
    standings = Counted(live.database, live.cluster_id, SystemClock(), Damping())
    eye = ClusterEye(visits.door, standings, attempts, frozenset({NAMESPACE}), **pace)
    task = asyncio.create_task(eye.run())
    try:
        yield eye, standings
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_cluster_that_gives_lists_and_no_watch_is_given_longer_and_longer_pauses(live: Live) -> None:
    visits, attempts = Visits(live), Attempts(live.database, live.vault)
    # Of these, a visit that counts as good is followed by the first.
    pauses = (TEN_MINUTES, 0.0)
    with live.server.fault(Fault("drop", verbs=("watch",))):
        async with watching(live, visits, attempts, pauses=pauses):
            await until_true(lambda: visits.number == 2)


async def test_a_run_that_could_not_be_kept_is_tried_again_but_not_for_ever(live: Live) -> None:
    deployment_id, attempts = await live.add(), Refusing(live)
    containers = [chatty(name, "echo broken; exit 3") for name in ("never", "later")]
    live.put(pod(deployment_id, "chat-1", *containers, restartPolicy="Never"))

    async def kept() -> list[tuple[str, int]]:
        async with live.database.reading() as session:
            return [(one.container, one.lines) for one in await session.scalars(select(DeploymentAttempt))]

    async with watching(live, Visits(live), attempts, retry_s=0.05) as (eye, standings):
        await until_true(lambda: attempts.tries["never"] == TRIES)
        # A look has ended when the next one has begun.
        for looks in range(standings.looks, standings.looks + 2):
            eye.look_at(deployment_id)
            await until_true(lambda looks=looks: standings.looks > looks)
        assert await kept() == [("later", 1)]
    assert attempts.tries == {"never": TRIES, "later": 2}
