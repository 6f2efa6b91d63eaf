"""What is written into a row that others write, too: what is known when its turn comes, and nothing that is older."""

import asyncio
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy import text as sql

from budcluster.deployment import repository
from budcluster.deployment.models import Deployment, DeploymentStatus
from budcluster.deployment.watching.standing import Standings
from budcluster.deployment.watching.status import Damping, Seen
from budcluster.kit.clock import SystemClock
from tests.deployment.live import Live, until
from tests.deployment.test_status import pod, workload

GATED: dict[str, Any] = {"type": "model-gated", "detail": "The model is gated.", "fix": "Accept its terms."}


def standings_of(live: Live) -> Standings:
    return Standings(live.database, live.cluster_id, SystemClock(), Damping())


async def waiting(live: Live) -> int:
    """How many sessions wait for a row."""
    locks = select(func.count()).select_from(sql("pg_stat_activity")).where(sql("wait_event_type = 'Lock'"))
    async with live.database.reading() as session:
        return int(await session.scalar(locks.where(sql("datname = current_database()"))) or 0)


async def test_who_waits_for_the_row_writes_what_has_become_known_meanwhile(live: Live) -> None:
    deployment_id = await live.add()
    known = Seen(workload(), [pod(ready=False)])
    async with live.database.writing() as session:
        operation = await repository.lock_deployment(session, deployment_id)
        operation.replicas_ready, operation.servable = 1, True
        await session.flush()
        looking = asyncio.create_task(standings_of(live).write(deployment_id, lambda: known))
        await until(lambda: waiting(live), bool)
        known = Seen(workload(), [pod()])
    await looking
    row = await live.row(deployment_id)
    assert (row.replicas_ready, row.servable, row.status) == (1, True, DeploymentStatus.RUNNING)


async def test_the_cause_of_a_start_that_is_taken_back_stays_while_its_pods_still_leave(live: Live) -> None:
    deployment_id = await live.add(status=DeploymentStatus.DEPLOYING)
    async with live.database.writing() as session:
        await session.execute(update(Deployment).where(Deployment.id == deployment_id).values(diagnosis=GATED))
    for pods in ([pod(ready=False, going=True)], []):
        await standings_of(live).write(deployment_id, lambda pods=pods: Seen(None, pods))
        assert (await live.row(deployment_id)).diagnosis == GATED
