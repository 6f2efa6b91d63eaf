"""Everything that long work needs in one process: the workflow engine and worker, notices, periodic jobs, streams.

`bootstrap` makes one, gives it what the features bring, and starts it once the database is migrated.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import httpx
from prometheus_client import CollectorRegistry

from budcluster.config import Settings
from budcluster.durable.backend import Backend, BackendKind, choose_backend
from budcluster.durable.refs import ActivityRef, WorkflowRef
from budcluster.durable.sidecar.limits import Limits
from budcluster.durable.starter import WorkflowStarter
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database
from budcluster.operations.activities import OperationActivities
from budcluster.operations.feeds import Feeds
from budcluster.operations.journal import Journals
from budcluster.operations.ledger import CHANNELS, PENDING
from budcluster.operations.notices import Notices
from budcluster.operations.periodic import Job, Scheduler
from budcluster.operations.publisher import Publisher
from budcluster.operations.refs import MARK_FAILED, MARK_STARTED, MARK_SUCCEEDED
from budcluster.operations.retention import Retention
from budcluster.operations.services import Follower, Operations, Turn
from budcluster.operations.sweeper import Sweeper

if TYPE_CHECKING:
    from budcluster.durable.runtime import Activity, Orchestrator, WorkflowHost


_STOP_GRACE_S: Final = 3.0
"""Seconds that running activities get to end by themselves when the service stops. Most run for minutes and do not."""


@dataclass(frozen=True)
class Feature:
    """What a feature brings: its workflows and activities, who follows its operations, its periodic jobs."""

    workflows: "Sequence[tuple[WorkflowRef[Any], Orchestrator]]" = ()
    activities: "Sequence[tuple[ActivityRef[Any, Any], Activity]]" = ()
    followers: Mapping[str, Follower] = field(default_factory=dict)
    """By kind of operation."""
    turns: Mapping[str, Turn] = field(default_factory=dict)
    """By kind of operation."""
    jobs: Sequence[Job] = ()


class LongWork:
    """One process's part in long work. Add the features, then start."""

    def __init__(self, settings: Settings, database: Database, clock: Clock, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._registry = registry
        self._backend = backend_of(settings)
        self.make_host: Callable[[Backend], WorkflowHost] = _make_host
        self.notices = Notices(settings.asyncpg_dsn, CHANNELS)
        self.operations = Operations(clock)
        self.journals = Journals(database, self.notices, clock)
        self.feeds = Feeds(database, self.notices)
        self.starter = WorkflowStarter(self._backend)
        own = OperationActivities(database, self.operations, clock)
        marks: list[tuple[ActivityRef[Any, Any], Any]] = [
            (MARK_STARTED, own.mark_started),
            (MARK_SUCCEEDED, own.mark_succeeded),
            (MARK_FAILED, own.mark_failed),
        ]
        self._features = [Feature(activities=marks)]
        self._http: httpx.AsyncClient | None = None
        self._host: WorkflowHost | None = None
        self._scheduler: Scheduler | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, feature: Feature) -> None:
        """Add what a feature brings; before `start`."""
        self._features.append(feature)
        for kind, follower in feature.followers.items():
            self.operations.follow(kind, follower)
        for kind, turn in feature.turns.items():
            self.operations.queue(kind, turn)

    async def start(self) -> None:
        """Start everything in the background. Returns soon, whether or not the engine can be reached."""
        # Importing the SDK takes a second of work.
        self._host = await asyncio.to_thread(self.make_host, self._backend)
        for feature in self._features:
            for workflow, orchestrator in feature.workflows:
                self._host.add_workflow(workflow, orchestrator)
            for reference, activity in feature.activities:
                self._host.add_activity(reference, activity)
        await self._host.start()
        self._http = httpx.AsyncClient(timeout=10)
        self._scheduler = Scheduler(self._database, self._jobs(self._http), self.notices, registry=self._registry)
        self._tasks = [
            asyncio.create_task(self.notices.run(), name="notices"),
            asyncio.create_task(self._scheduler.run(), name="scheduler"),
        ]

    async def stop(self) -> None:
        """End streams, then jobs, then workers; running activities are cancelled and taken up again after a restart."""
        self.feeds.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._host is not None:
            await self._host.stop(grace_s=_STOP_GRACE_S)
        await self.starter.close()
        if self._http is not None:
            await self._http.aclose()

    async def problem(self) -> str | None:
        """Why workflows do not run just now; None when they do."""
        if self._host is not None and self._host.ready():
            return None
        return "The workflow engine is not connected yet; operations are accepted and start once it is."

    async def late_jobs(self) -> str | None:
        """Which periodic jobs no replica has run for long; None when all are in time. Raises DatabaseUnavailable."""
        if self._scheduler is None:
            return None
        late = [job.name for job in await self._scheduler.health() if job.is_late]
        return f"Periodic jobs that are late: {', '.join(late)}." if late else None

    def _jobs(self, http: httpx.AsyncClient) -> list[Job]:
        workflows = {workflow.name: workflow for feature in self._features for workflow, _ in feature.workflows}
        sweeper = Sweeper(self._database, self.operations, self.starter, workflows, self._clock)
        keep = timedelta(days=self._settings.operations.retention_days)
        retention = Retention(self._database, self.starter, keep, self._clock)
        jobs = [
            Job("operations.launch", timedelta(seconds=5), sweeper.launch, wake_on=PENDING),
            Job("operations.reconcile", timedelta(seconds=30), sweeper.reconcile),
            Job("operations.purge", timedelta(hours=1), retention.purge),
        ]
        if self._settings.events.pubsub is not None:
            publisher = Publisher(self._database, http, self._settings, self._clock)
            jobs.append(Job("operations.publish", timedelta(seconds=1), publisher.publish))
        return jobs + [job for feature in self._features for job in feature.jobs]


def backend_of(settings: Settings) -> Backend:
    """The workflow engine that the settings choose."""
    limits = Limits(
        payload_bytes=settings.workflows.max_payload_bytes,
        history_bytes=settings.workflows.max_history_bytes,
        deliveries=settings.workflows.max_dispatches,
        keep_finished=timedelta(days=settings.workflows.retention_days),
    )
    token = settings.dapr_api_token
    given = {
        "DAPR_GRPC_ENDPOINT": settings.dapr_grpc_endpoint,
        "DAPR_GRPC_PORT": None if settings.dapr_grpc_port is None else str(settings.dapr_grpc_port),
        "DAPR_API_TOKEN": None if token is None else token.get_secret_value(),
    }
    environment = {name: value for name, value in given.items() if value is not None}
    return choose_backend(BackendKind(settings.workflow_backend), environment, dsn=settings.asyncpg_dsn, limits=limits)


def _make_host(backend: Backend) -> "WorkflowHost":
    from budcluster.durable.runtime import WorkflowHost  # noqa: PLC0415 - imports the SDK, which takes a second

    return WorkflowHost(backend)
