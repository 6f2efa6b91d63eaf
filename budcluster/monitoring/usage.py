"""How much of a cluster is asked for, used and there: from the best witness that answers in time."""

import asyncio
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from budcluster.cluster.access import ClusterAccess, NoCredential
from budcluster.cluster.directory import StoredClusters
from budcluster.hardware import inventory
from budcluster.hardware.models import AddonName, ClusterAddon
from budcluster.hardware.reading.profile import NodeProfile
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database, DatabaseUnavailable, ReadSession
from budcluster.kit.errors import DomainError
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import KubeError
from budcluster.kube.refusals import KubeconfigRefused
from budcluster.monitoring import measurements
from budcluster.monitoring.devices import MeasuredGpu
from budcluster.monitoring.measurements import Measured, NotMeasured
from budcluster.monitoring.prometheus_places import find_places

_DEADLINE_S: Final = 5.0
_MOST_DEVICES: Final = 512
"""GPUs that an answer lists one by one."""
_KEPT_S: Final = 10.0
"""How long an answer is given again: many who look at once cost a cluster one question."""


class Source(StrEnum):
    """Where `used` comes from."""

    PROMETHEUS = "prometheus"
    METRICS_SERVER = "metrics-server"
    REQUESTS = "requests"
    """Nobody measures: only what pods ask for is known."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Of one kind of resource. None where nobody tells."""

    requested: float | None = None
    used: float | None = None
    allocatable: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """One cluster at one moment."""

    source: Source
    measured_at: datetime
    as_of: datetime | None
    """Of `requested` and `allocatable`."""
    cpu_cores: Amount = field(default_factory=Amount)
    memory_bytes: Amount = field(default_factory=Amount)
    gpus: Amount = field(default_factory=Amount)
    """Requested and allocatable as pods ask for them: shares where devices are shared. Used in whole devices."""
    gpu_memory_mib: Amount = field(default_factory=Amount)
    devices: tuple[MeasuredGpu, ...] | None = None
    """Each GPU as DCGM measures it; None where nobody does, or there are too many to list."""
    witness: str | None = None
    """The Prometheus that answered, as `namespace/service`."""
    notes: tuple[str, ...] = ()
    """Why a better source did not answer, in sentences."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database tells."""

    usage: Usage
    prometheus: ClusterAddon | None
    gpus: int


class UsageService:
    """Answers how much of a cluster is in use. Never waits longer than its deadline for the cluster."""

    def __init__(
        self, database: Database, access: ClusterAccess, clock: Clock, *, deadline_s: float = _DEADLINE_S
    ) -> None:
        self._database = database
        self._access = access
        self._clock = clock
        self._deadline_s = deadline_s
        self._clusters = StoredClusters()
        self._kept: dict[UUID, tuple[float, asyncio.Task[Usage]]] = {}

    async def of(self, cluster_id: UUID) -> Usage:
        """The usage, at most ten seconds old. Raises ClusterNotFound, DatabaseUnavailable."""
        async with self._database.reading() as session:
            await self._clusters.require(session, cluster_id)
        now = time.monotonic()
        self._kept = {one: kept for one, kept in self._kept.items() if kept[0] > now or not kept[1].done()}
        if cluster_id not in self._kept:
            task = asyncio.create_task(self._look(cluster_id), name="usage")
            self._kept[cluster_id] = (now + _KEPT_S, task)
        try:
            return await asyncio.shield(self._kept[cluster_id][1])
        except DatabaseUnavailable:
            self._kept.pop(cluster_id, None)
            raise

    async def _look(self, cluster_id: UUID) -> Usage:
        known = await self._stored(cluster_id)
        notes: list[str] = []
        try:
            async with asyncio.timeout(self._deadline_s):
                async with self._access.open(cluster_id, operation="usage") as door:
                    return await self._measured(door.client, known, notes)
        except DatabaseUnavailable:
            raise
        except TimeoutError:
            notes.append(f"The cluster did not answer within {self._deadline_s:g} s.")
        except (KubeError, NoCredential, KubeconfigRefused) as error:
            notes.append(str(error))
        except DomainError as error:
            notes.append(error.detail)
        return replace(known.usage, notes=tuple(notes))

    async def _measured(self, client: ClusterClient, known: _Known, notes: list[str]) -> Usage:
        usage = known.usage
        for source, ask in ((Source.PROMETHEUS, self._ask_prometheus), (Source.METRICS_SERVER, _ask_metrics_server)):
            try:
                seen = await ask(client, known)
            except NotMeasured as reason:
                notes.append(str(reason))
                continue
            if source is Source.PROMETHEUS and known.gpus > _MOST_DEVICES:
                notes.append(f"GPUs are not listed one by one: the cluster has more than {_MOST_DEVICES}.")
            return replace(
                usage,
                source=source,
                cpu_cores=replace(usage.cpu_cores, used=seen.cpu_cores),
                memory_bytes=replace(usage.memory_bytes, used=seen.memory_bytes),
                gpus=replace(usage.gpus, used=seen.gpus),
                gpu_memory_mib=replace(usage.gpu_memory_mib, used=seen.gpu_memory_mib),
                devices=seen.devices,
                witness=seen.witness,
                notes=tuple(notes),
            )
        return replace(usage, notes=tuple(notes))

    async def _ask_prometheus(self, client: ClusterClient, known: _Known) -> Measured:
        try:
            places = await find_places(client, known.prometheus)
        except KubeError as error:
            raise NotMeasured(f"Prometheus could not be looked for: {error}") from error
        return await measurements.from_prometheus(client, places, each_device=known.gpus <= _MOST_DEVICES)

    async def _stored(self, cluster_id: UUID) -> _Known:
        async with self._database.reading() as session:
            addon = await session.get(ClusterAddon, (cluster_id, AddonName.PROMETHEUS))
            usage, gpus = await self._asked_for(session, cluster_id)
        return _Known(usage, addon, gpus)

    async def _asked_for(self, session: ReadSession, cluster_id: UUID) -> tuple[Usage, int]:
        """What the inventory tells: requests and what is there, and how many GPUs."""
        fresh = await inventory.freshness(session, cluster_id)
        nothing = Usage(Source.REQUESTS, self._clock.now(), fresh.as_of)
        if not fresh.complete:
            return nothing, 0
        sums = await inventory.totals(session, cluster_id)
        nodes = await inventory.gpu_nodes(session, cluster_id)
        pools = [pool for node in nodes for pool in node.pools]
        usage = replace(
            nothing,
            cpu_cores=Amount(requested=sums.cpu_requested, allocatable=sums.cpu_cores),
            memory_bytes=Amount(requested=sums.memory_requested_bytes, allocatable=sums.memory_bytes),
            gpus=Amount(
                requested=sum(pool.requested for pool in pools), allocatable=sum(pool.advertised for pool in pools)
            ),
            gpu_memory_mib=_gpu_memory(nodes),
        )
        return usage, sums.gpus


async def _ask_metrics_server(client: ClusterClient, _: _Known) -> Measured:
    return await measurements.from_metrics_server(client)


def _gpu_memory(nodes: tuple[NodeProfile, ...]) -> Amount:
    """Of all devices. What is requested is known where HAMi hands it out, device by device."""
    gpus = [gpu for node in nodes for gpu in node.gpus]
    if not gpus:
        return Amount(requested=0, allocatable=0)
    if any(gpu.memory_mib is None for gpu in gpus):
        return Amount()
    told = all(gpu.used_by is not None for gpu in gpus)
    requested = sum(use.memory_mib or 0 for gpu in gpus for use in gpu.used_by or ())
    return Amount(requested=requested if told else None, allocatable=sum(gpu.memory_mib or 0 for gpu in gpus))
