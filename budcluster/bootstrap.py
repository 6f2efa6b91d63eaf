"""The one place that names concrete parts and joins them: database, gateways, services, background work."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog

from budcluster.api.authentication import Authenticator, is_loopback
from budcluster.api.edge import Edge
from budcluster.api.health import Metrics, Readiness
from budcluster.api.idempotency import forget_old_answers
from budcluster.api.tokens import TokenDigest
from budcluster.audit.services import AuditService
from budcluster.cluster.access import ClusterAccess
from budcluster.cluster.adoption import ClusterWork
from budcluster.cluster.directory import StoredClusters
from budcluster.cluster.feature import HardwareRequests, cluster_feature
from budcluster.cluster.services import ClusterService
from budcluster.config import Settings
from budcluster.credentials.errors import KeyUnusable
from budcluster.credentials.ring import KeyRing
from budcluster.credentials.services import CredentialService
from budcluster.credentials.vault import Vault
from budcluster.deployment.admission import Admission
from budcluster.deployment.feature import deployment_feature
from budcluster.deployment.guards import DeploymentsOnCluster, DeploymentsWithCredential
from budcluster.deployment.logs.attempts import Attempts
from budcluster.deployment.logs.streams import DeploymentLogs
from budcluster.deployment.model_hub import ModelHub
from budcluster.deployment.services import DeploymentService
from budcluster.deployment.turns import Turns
from budcluster.deployment.watching.watcher import DeploymentWatcher
from budcluster.deployment.work import DeploymentWork
from budcluster.hardware.changes import HardwareWorkHolder
from budcluster.hardware.services import HardwareService
from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import Database, DatabaseUnavailable
from budcluster.kit.redaction import Redactor
from budcluster.kube.door import Doors
from budcluster.migrations import migrate
from budcluster.monitoring.health import HealthChecks
from budcluster.monitoring.inventory_watch import InventoryWatch
from budcluster.monitoring.usage import UsageService
from budcluster.operations.feeds import Feeds
from budcluster.operations.long_work import Feature, LongWork
from budcluster.operations.periodic import Job
from budcluster.operations.services import Operations

log = structlog.get_logger(__name__)

_RETRY_S = 2.0
"""Seconds between attempts to reach and migrate the database at start."""


@dataclass
class Service:
    """One running process's parts."""

    edge: Edge
    authenticator: Authenticator
    readiness: Readiness
    metrics: Metrics
    long_work: LongWork
    inventory: InventoryWatch
    deployments: DeploymentWatcher
    doors: Doors
    on_started: Callable[[], None] = lambda: None
    """Called once, when everything runs."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start background work, and end it in order. Serving begins at once; `readiness` says when it is complete."""
        tasks = [
            asyncio.create_task(self._start(), name="start"),
            asyncio.create_task(self._keep_inventories(), name="inventories"),
            asyncio.create_task(self._watch_deployments(), name="deployments"),
            asyncio.create_task(_every(60, "token_usage", self.authenticator.write_down_usage), name="token-usage"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.long_work.stop()
            await _tried("token_usage", self.authenticator.write_down_usage)
            await self.edge.database.close()

    async def _keep_inventories(self) -> None:
        await self.readiness.started.wait()
        await self.inventory.run()

    async def _watch_deployments(self) -> None:
        await self.readiness.started.wait()
        await self.deployments.run()

    async def _start(self) -> None:
        await _tried("workspace.sweep", self.doors.sweep)
        while True:
            try:
                await self.edge.database.wait_until_up()
                await migrate(self.edge.settings.sqlalchemy_url)
            except DatabaseUnavailable:
                log.warning("database.still_away")
            except Exception:
                log.exception("database.migration_failed")
                self.readiness.waiting_for = (
                    "The database could not be migrated to this version; the log says why. It is tried again."
                )
            else:
                self.readiness.started.set()
                log.info("service.started")
                break
            await asyncio.sleep(_RETRY_S)
        while True:
            if await _tried("long_work.start", self.long_work.start):
                self.on_started()
                return
            await asyncio.sleep(_RETRY_S)


def make_service(settings: Settings, *, clock: Clock | None = None) -> Service:
    """Everything one process needs, not yet running."""
    own_clock = clock or SystemClock()
    database = Database(settings.sqlalchemy_url, settings.database)
    ring = KeyRing.from_settings(settings)
    edge = Edge(settings, database, ring.request_digest, own_clock)
    vault = Vault(ring, database)
    edge.provide(AuditService, AuditService())
    edge.provide(Vault, vault)
    credentials = CredentialService(vault, database, own_clock, guards=[DeploymentsWithCredential()])
    edge.provide(CredentialService, credentials)
    edge.provide(ClusterService, ClusterService())
    edge.provide(DeploymentService, DeploymentService())
    metrics = Metrics()
    long_work = LongWork(settings, database, own_clock, metrics.registry)
    long_work.add(Feature(jobs=[_idempotency_job(settings, database)]))
    doors = make_doors(settings)
    access = ClusterAccess(database, vault, doors, clock=own_clock, allow_local=settings.kubernetes.allow_local_servers)
    long_work.add(cluster_feature(settings, database, access, vault, long_work.journals, own_clock))
    work = ClusterWork(
        long_work.operations,
        vault,
        own_clock,
        allow_local=settings.kubernetes.allow_local_servers,
        guard=DeploymentsOnCluster(),
    )
    edge.provide(ClusterWork, work)
    long_work.add(Feature(jobs=[HealthChecks(database, access, own_clock).job()]))
    edge.provide(UsageService, UsageService(database, access, own_clock))
    edge.provide(DeploymentLogs, DeploymentLogs(database, access))
    attempts = Attempts(database, vault)
    edge.provide(Attempts, attempts)
    edge.provide(HardwareService, HardwareService(StoredClusters()))
    edge.provide(HardwareWorkHolder, HardwareWorkHolder(HardwareRequests(work)))
    admission = Admission(ModelHub(settings.model_hub), credentials, settings.deployments, settings.model_hub)
    journals = long_work.journals
    turns = Turns(database)
    long_work.add(deployment_feature(settings, database, access, credentials, journals, admission, turns, own_clock))
    namespace = settings.deployments.namespace
    deploying = DeploymentWork(database, long_work.operations, admission, doors, turns, namespace=namespace)
    edge.provide(DeploymentWork, deploying)
    edge.provide(Operations, long_work.operations)
    edge.provide(Feeds, long_work.feeds)
    authenticator = Authenticator(
        database=database,
        digest=ring.token_digest,
        app_token=settings.app_api_token,
        allow_anonymous=is_loopback(settings.host) or settings.api.allow_anonymous_remote,
        only_loopback_names=not settings.api.allow_anonymous_remote,
        clock=own_clock,
    )
    checks = {
        "database": _database_check(database),
        "keys": _key_check(ring),
        "workflows": long_work.problem,
    }
    readiness = Readiness(checks, notes={"periodic_jobs": long_work.late_jobs})
    inventory = InventoryWatch(database, access, own_clock)
    deployments = DeploymentWatcher(database, access, attempts, own_clock, kept=lambda: inventory.kept)
    return Service(edge, authenticator, readiness, metrics, long_work, inventory, deployments, doors)


def make_doors(settings: Settings) -> Doors:
    """The way to clusters: API, Helm and Ansible."""
    return Doors(
        playbooks=settings.ansible_playbooks_path,
        workspace=settings.kubernetes.workspace,
        max_tools=settings.kubernetes.max_tools,
        collections=settings.kubernetes.collections_path,
        path=os.environ.get("PATH"),
        allow_local=settings.kubernetes.allow_local_servers,
    )


def redactor_for(settings: Settings) -> Redactor:
    """Masks the secrets that this process is configured with, besides everything that looks like one."""
    given = [settings.app_api_token, settings.dapr_api_token]
    values = [secret.get_secret_value() for secret in given if secret is not None]
    password = settings.sqlalchemy_url.password
    return Redactor([*values, password] if password else values)


def token_digest(settings: Settings) -> TokenDigest:
    """The keyed hash of tokens."""
    return KeyRing.from_settings(settings).token_digest


def _database_check(database: Database) -> Callable[[], Awaitable[str | None]]:
    async def check() -> str | None:
        try:
            await database.ping()
        except DatabaseUnavailable as error:
            return error.detail
        return None

    return check


def _idempotency_job(settings: Settings, database: Database) -> Job:
    async def forget() -> str:
        async with database.writing() as session:
            await forget_old_answers(session, timedelta(hours=settings.api.idempotency_hours))
        return "old answers forgotten"

    return Job("idempotency.forget", timedelta(hours=1), forget)


def _key_check(ring: KeyRing) -> Callable[[], Awaitable[str | None]]:
    async def check() -> str | None:
        try:
            await asyncio.to_thread(ring.check)
        except KeyUnusable as error:
            return error.detail
        return None

    return check


async def _every(seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await _tried(name, work)


async def _tried(name: str, work: Callable[[], Awaitable[None]]) -> bool:
    try:
        await work()
    except DatabaseUnavailable:
        log.info("background.postponed", work=name)
    except Exception:
        log.exception("background.failed", work=name)
    else:
        return True
    return False
