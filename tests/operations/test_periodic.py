"""Periodic work: one replica at a time, however many there are and whatever happens to them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from budcluster.kit.database import Database
from budcluster.operations.ledger import PENDING
from budcluster.operations.models import Outcome
from budcluster.operations.notices import Notices
from budcluster.operations.periodic import Job, Scheduler
from tests.operations.desk import eventually

SOON = timedelta(milliseconds=50)
NEVER = timedelta(days=1)


class Counted:
    """A job that counts its runs, and how many ran at once."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.runs = 0
        self.at_once = 0
        self.most_at_once = 0
        self._seconds = seconds

    async def __call__(self) -> str:
        self.runs += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.at_once -= 1
        return "done"

    def reached(self, runs: int) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            return self.runs >= runs

        return check


def _scheduler(database: Database, notices: Notices, *jobs: Job, lease: float = 15) -> Scheduler:
    return Scheduler(database, jobs, notices, lease=timedelta(seconds=lease), registry=CollectorRegistry())


@asynccontextmanager
async def _running(*schedulers: Scheduler) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(scheduler.run()) for scheduler in schedulers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_two_replicas_never_run_a_job_at_once(database: Database, notices: Notices) -> None:
    work = Counted(0.02)
    replicas = [_scheduler(database, notices, Job("count", SOON, work)) for _ in range(3)]
    async with _running(*replicas):
        await eventually(work.reached(8))
    assert work.most_at_once == 1


async def test_a_job_runs_again_after_it_failed_and_the_failure_is_seen(database: Database, notices: Notices) -> None:
    work = Counted()

    async def fail_first() -> str:
        await work()
        if work.runs == 1:
            raise ConnectionError
        return "well"

    scheduler = _scheduler(database, notices, Job("shaky", SOON, fail_first))
    async with _running(scheduler):
        await eventually(work.reached(3))
        assert (await scheduler.health())[0].last_outcome is Outcome.SUCCEEDED


async def test_a_notification_makes_a_job_run_at_once(database: Database, notices: Notices, database_url: str) -> None:
    work = Counted()
    async with _running(_scheduler(database, notices, Job("wait", NEVER, work, wake_on=PENDING))):
        await eventually(work.reached(1))
        admin = await asyncpg.connect(database_url)
        await admin.execute(f"notify {PENDING}, 'x'")
        await admin.close()
        await eventually(work.reached(2))


async def test_the_job_of_a_replica_that_died_is_taken_over(database: Database, notices: Notices) -> None:
    work = Counted()
    await _lease_of_a_dead_replica(database, "orphan", seconds=0.3)
    async with _running(_scheduler(database, notices, Job("orphan", SOON, work))):
        await eventually(work.reached(1))


async def test_a_long_run_keeps_its_lease(database: Database, notices: Notices) -> None:
    work = Counted(30)
    replicas = [_scheduler(database, notices, Job("long", SOON, work), lease=3) for _ in range(2)]

    async def is_renewed() -> bool:
        async with database.reading() as session:
            renewed = "select lease_until > last_started_at + interval '3 seconds' from periodic_runs"
            return bool((await session.execute(text(renewed))).scalar_one())

    async with _running(*replicas):
        await eventually(work.reached(1))
        await eventually(is_renewed)
        assert (work.runs, work.at_once) == (1, 1)


async def test_a_run_that_lost_its_lease_is_ended(database: Database, notices: Notices) -> None:
    work = Counted(30)
    async with _running(_scheduler(database, notices, Job("lost", NEVER, work), lease=0.2)):
        await eventually(work.reached(1))
        async with database.writing() as session:
            await session.execute(text("update periodic_runs set lease_owner = 'another'"))

        async def has_ended() -> bool:
            return work.at_once == 0

        await eventually(has_ended)


async def test_an_interval_counts_from_the_start_of_a_run_however_long_that_takes(
    database: Database, notices: Notices
) -> None:
    work = Counted(0.5)
    scheduler = _scheduler(database, notices, Job("steady", timedelta(hours=1), work))
    async with _running(scheduler):

        async def has_finished() -> bool:
            return (await scheduler.health())[0].last_finished_at is not None

        await eventually(has_finished)
    async with database.reading() as session:
        told = "select due_at - last_started_at, last_finished_at - last_started_at from periodic_runs"
        until_due, took = (await session.execute(text(told))).one()
    assert until_due == timedelta(hours=1)
    assert took >= timedelta(seconds=0.5)


async def test_a_missed_run_is_seen(database: Database, notices: Notices) -> None:
    async with database.writing() as session:
        await session.execute(
            text(
                "insert into periodic_runs (job, due_at, runs, missed) values ('late', now() - interval '1 hour', 1, 0)"
            )
        )
    work = Counted()
    scheduler = _scheduler(database, notices, Job("late", timedelta(minutes=5), work))
    assert (await scheduler.health())[0].is_late
    async with _running(scheduler):
        await eventually(work.reached(1))

        async def is_counted() -> bool:
            health = (await scheduler.health())[0]
            return health.missed == 1 and not health.is_late

        await eventually(is_counted)


async def test_a_stop_gives_the_lease_back(database: Database, notices: Notices) -> None:
    work = Counted(30)
    async with _running(_scheduler(database, notices, Job("stopped", NEVER, work))):
        await eventually(work.reached(1))
    async with database.reading() as session:
        owner = (await session.execute(text("select lease_owner from periodic_runs"))).scalar_one()
    assert owner is None


async def test_jobs_go_on_when_the_database_was_away(database: Database, notices: Notices, database_url: str) -> None:
    work = Counted()
    admin = await asyncpg.connect(database_url)
    async with _running(_scheduler(database, notices, Job("tough", SOON, work))) as tasks:
        for round_ in range(1, 5):
            await eventually(work.reached(round_ * 2))
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid()"
            )
        assert not any(task.done() for task in tasks)
    await admin.close()


async def _lease_of_a_dead_replica(database: Database, job: str, *, seconds: float) -> None:
    async with database.writing() as session:
        await session.execute(
            text(
                "insert into periodic_runs (job, lease_owner, lease_until, runs, missed)"
                " values (:job, 'dead', now() + :lease, 1, 0)"
            ),
            {"job": job, "lease": timedelta(seconds=seconds)},
        )
