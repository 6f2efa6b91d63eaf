"""Periodic work: every replica loops, a lease in the database lets exactly one of them run a job at a time.

A lease is renewed while its job runs. A replica that dies or freezes loses it, and another one runs the job; so a job
must bear being run twice at once for a moment. Runs that came more than one whole interval late are counted as missed.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from sqlalchemy import select, text

from budcluster.kit.cancellation import raise_if_cancelled
from budcluster.kit.database import Database, DatabaseUnavailable
from budcluster.operations.models import Outcome, PeriodicRun
from budcluster.operations.notices import Notices

log = structlog.get_logger(__name__)

_LEASE: Final = timedelta(seconds=15)
_RENEW_S: Final = 5.0
_RETRY_S: Final = 1.0


@dataclass(frozen=True)
class Job:
    """Something to do again and again."""

    name: str
    every: timedelta
    run: Callable[[], Awaitable[str]]
    """Does it once; says in a few words what it did. Cancelled when the service stops or the lease is lost."""
    wake_on: str | None = None
    """Notification channel that makes it run at once."""


@dataclass(frozen=True)
class JobHealth:
    """What is known of a job, for `/readyz` and whoever asks."""

    name: str
    last_finished_at: datetime | None
    last_outcome: Outcome | None
    missed: int
    is_late: bool
    """No replica has run it for three intervals and half a minute."""


class Scheduler:
    """Runs jobs for as long as `run` runs."""

    def __init__(
        self,
        database: Database,
        jobs: Sequence[Job],
        notices: Notices,
        *,
        lease: timedelta = _LEASE,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._notices = notices
        self._lease = lease
        self._owner = f"{socket.gethostname()[:80]}:{os.getpid()}:{uuid4().hex[:8]}"
        self._metrics = _Metrics(registry)

    async def run(self) -> None:
        """Loop until cancelled; then running jobs are cancelled and their leases given back."""
        async with asyncio.TaskGroup() as group:
            for job in self._jobs:
                group.create_task(self._loop(job), name=f"periodic-{job.name}")

    async def health(self) -> list[JobHealth]:
        """How each job does. Raises DatabaseUnavailable."""
        async with self._database.reading() as session:
            now = (await session.execute(text("select now()"))).scalar_one()
            rows = {row.job: row for row in await session.scalars(select(PeriodicRun))}
        return [_health(job, rows.get(job.name), now) for job in self._jobs]

    async def _loop(self, job: Job) -> None:
        # A bell that nobody rings makes the wait a plain sleep.
        with self._notices.bell(job.wake_on or f"periodic {job.name}") as bell:
            woken = False
            while True:
                raise_if_cancelled()
                try:
                    pause = await self._turn(job, woken=woken)
                except DatabaseUnavailable:
                    pause = _RETRY_S
                woken = await bell.wait(pause)

    async def _turn(self, job: Job, *, woken: bool) -> float:
        """Run the job if it is due (or woken) and nobody else runs it. Gives the seconds until the next look."""
        if not await self._take(job, woken=woken):
            return await self._seconds_until_due(job)
        work = asyncio.ensure_future(job.run())
        renewal = asyncio.ensure_future(self._renew(job))
        outcome, detail = Outcome.FAILED, "interrupted"
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                outcome, detail = Outcome.SUCCEEDED, work.result()
        except Exception as error:
            detail = type(error).__name__
            log.warning("job.failed", job=job.name, exc_info=error)
        finally:
            for task in (work, renewal):
                task.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)
            with contextlib.suppress(DatabaseUnavailable):
                await asyncio.shield(self._give_back(job, outcome, detail))
        self._metrics.ran(job.name, outcome)
        return await self._seconds_until_due(job)

    async def _take(self, job: Job, *, woken: bool) -> bool:
        values = {"job": job.name, "owner": self._owner, "lease": self._lease, "every": job.every, "woken": woken}
        async with self._database.writing() as session:
            await session.execute(_ENSURE, {"job": job.name})
            late = (await session.execute(_TAKE, values)).scalar_one_or_none()
        if late:
            self._metrics.missed(job.name)
            log.warning("job.missed", job=job.name)
        return late is not None

    async def _renew(self, job: Job) -> None:
        """Ends when the lease was lost."""
        values = {"job": job.name, "owner": self._owner, "lease": self._lease}
        renewed_at = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(min(_RENEW_S, self._lease.total_seconds() / 3))
            with contextlib.suppress(DatabaseUnavailable):
                async with self._database.writing() as session:
                    if (await session.execute(_RENEW, values)).scalar_one_or_none() is None:
                        log.warning("job.lease_lost", job=job.name)
                        return
                renewed_at = asyncio.get_running_loop().time()
            if asyncio.get_running_loop().time() - renewed_at > self._lease.total_seconds():
                log.warning("job.lease_expired", job=job.name)
                return

    async def _give_back(self, job: Job, outcome: Outcome, detail: str) -> None:
        values: dict[str, Any] = {"job": job.name, "owner": self._owner, "every": job.every}
        async with self._database.writing() as session:
            await session.execute(_GIVE_BACK, {**values, "outcome": outcome.value, "detail": detail[:500]})

    async def _seconds_until_due(self, job: Job) -> float:
        async with self._database.reading() as session:
            seconds = (await session.execute(_UNTIL_DUE, {"job": job.name, "owner": self._owner})).scalar_one()
        return max(0.05, min(float(seconds), job.every.total_seconds()))


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["job"]
        self._runs = Counter("budcluster_job_runs", "Periodic runs", [*labels, "outcome"], registry=registry)
        self._missed = Counter("budcluster_job_missed", "Periodic runs that came late", labels, registry=registry)
        self._last = Gauge(
            "budcluster_job_last_run_timestamp_seconds", "End of the last run", labels, registry=registry
        )

    def ran(self, job: str, outcome: Outcome) -> None:
        self._runs.labels(job, outcome.value).inc()
        self._last.labels(job).set_to_current_time()

    def missed(self, job: str) -> None:
        self._missed.labels(job).inc()


def _health(job: Job, row: PeriodicRun | None, now: datetime) -> JobHealth:
    if row is None:
        return JobHealth(job.name, None, None, missed=0, is_late=False)
    latest = max(filter(None, (row.due_at, row.last_finished_at, row.lease_until)))
    is_late = now - latest > 3 * job.every + timedelta(seconds=30)
    return JobHealth(job.name, row.last_finished_at, row.last_outcome, missed=row.missed, is_late=is_late)


# All times are the database's: replicas' clocks may differ. A lease that we hold is one whose return was lost with a
# connection: this process runs a job once at a time, so it may take it again.
_ENSURE: Final = text("insert into periodic_runs (job, runs, missed) values (:job, 0, 0) on conflict do nothing")
_TAKE: Final = text(
    """
    update periodic_runs
    set lease_owner = :owner, lease_until = now() + :lease, last_started_at = now(), runs = runs + 1,
        missed = missed + cast(now() > due_at + :every as int)
    where job = :job and (due_at <= now() or :woken)
      and (lease_until is null or lease_until <= now() or lease_owner = :owner)
    returning now() > due_at + :every
    """
)
_RENEW: Final = text(
    "update periodic_runs set lease_until = now() + :lease where job = :job and lease_owner = :owner returning 1"
)
_GIVE_BACK: Final = text(
    """
    update periodic_runs
    set lease_owner = null, lease_until = null, last_finished_at = now(), last_outcome = :outcome,
        last_detail = :detail, due_at = greatest(now(), last_started_at + :every)
    where job = :job and lease_owner = :owner
    """
)
_UNTIL_DUE: Final = text(
    """
    select extract(epoch from
        case when lease_owner <> :owner then greatest(due_at, lease_until) else due_at end - now())
    from periodic_runs where job = :job
    """
)
