"""Watches one cluster's model runtimes and writes what is true of them into their rows.

Changes come from watches; a deployment that changed is looked at once, half a second later. Only where waiting is part
of the answer (damping) it is looked at again without a change.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog

from budcluster.cluster.access import NO_ACCESS
from budcluster.deployment.logs.attempts import Attempts, Ended, ended_runs, last_lines
from budcluster.deployment.watching.pod_events import PodEvents, Subject, subject_of, subjects_of
from budcluster.deployment.watching.rota import Rota
from budcluster.deployment.watching.standing import Standings
from budcluster.deployment.watching.status import Seen, is_ready
from budcluster.kit.cancellation import innermost, raise_if_cancelled
from budcluster.kit.database import DatabaseUnavailable
from budcluster.kit.errors import DomainError
from budcluster.kit.pauses import Pauses
from budcluster.kube.client import ClusterClient
from budcluster.kube.diagnosis import Finding, PodEvidence, diagnose
from budcluster.kube.door import Door
from budcluster.kube.errors import KubeError
from budcluster.kube.follower import Follower
from budcluster.kube.ownership import LABEL_DEPLOYMENT
from budcluster.kube.resources import DEPLOYMENTS, EVENTS, PODS, SERVICES

log = structlog.get_logger(__name__)

Json = Mapping[str, Any]
_RunKey = tuple[str, str, int]

TRIES: Final = 3
"""To keep a run, where something else than an outage of the database is in the way."""
_GATHER_S: Final = 0.5
"""What changes within this time is looked at once."""
_RETRY_S: Final = 2.0
_PAUSES: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
_LOGS_AT_ONCE: Final = 32
"""The HTTP client has a hundred connections."""
_LINES_FOR_DIAGNOSIS: Final = 400


@dataclass
class _Run:
    """One that ended with a failure."""

    lines: list[str] = field(default_factory=list)
    """The end of what was read of its log."""
    tries: int = 0
    """To keep it."""
    is_kept: bool = False


class ClusterEye:
    """One cluster's model runtimes, for as long as this task runs."""

    def __init__(
        self,
        open_door: Callable[[], AbstractAsyncContextManager[Door]],
        standings: Standings,
        attempts: Attempts,
        namespaces: frozenset[str],
        *,
        pauses: tuple[float, ...] = _PAUSES,
        retry_s: float = _RETRY_S,
    ) -> None:
        """`pauses` come before each new visit, `retry_s` before a look that went wrong is repeated."""
        self._open_door = open_door
        self._standings = standings
        self._attempts = attempts
        self._pauses = Pauses(pauses)
        self._retry_s = retry_s
        self._workloads: dict[UUID, Json] = {}
        self._services: dict[str, UUID] = {}
        self._pods: dict[UUID, dict[str, Json]] = defaultdict(dict)
        self._owners: dict[str, UUID] = {}
        self._events = PodEvents()
        self._runs: dict[_RunKey, _Run] = {}
        self._rota = Rota()
        self._log_places = asyncio.Semaphore(_LOGS_AT_ONCE)
        self._followers = [follower for namespace in sorted(namespaces) for follower in self._followers_of(namespace)]

    async def run(self) -> None:
        """Until cancelled. Survives outages of the cluster and of the database."""
        while True:
            try:
                # In a task of its own: a group whose child fails leaves its own task marked as cancelled (Python 3.11).
                await asyncio.create_task(self._visit())
            except* NO_ACCESS as group:
                log.info("deployments.watch_interrupted", error=type(innermost(group)).__name__)
            # One that fails while it is cancelled tells of the failure only.
            raise_if_cancelled()
            await asyncio.sleep(self._pauses.next_s())

    def look_at(self, deployment_id: UUID) -> None:
        """Look at a deployment soon, though nothing changed in the cluster."""
        self._mark(deployment_id)

    async def _visit(self) -> None:
        async with self._open_door() as door:
            await self._see(door.client)

    async def _see(self, client: ClusterClient) -> None:
        for follower in self._followers:
            # What was known before an outage is old until the watches have caught up, and would be written as true now.
            follower.start_anew()
            await follower.list(client)
        for deployment_id in await self._standings.all_ids() | self._workloads.keys():
            self._mark(deployment_id)
        self._pauses.hold()
        async with asyncio.TaskGroup() as group:
            for follower in self._followers:
                group.create_task(follower.watch(client, lambda: None))
            group.create_task(self._rota.run(lambda owner: self._look(client, owner)))

    # -- what is seen ----------------------------------------------------------------------------------------------

    def _followers_of(self, namespace: str) -> list[Follower[Any]]:
        return [
            Follower(EVENTS, self._see_event, self._lose_event, namespace=namespace, optional=True),
            *(
                Follower(resource, see, lose, namespace=namespace, label_selector=LABEL_DEPLOYMENT)
                for resource, see, lose in (
                    (SERVICES, self._see_service, self._lose_service),
                    (PODS, self._see_pod, self._lose_pod),
                    (DEPLOYMENTS, self._see_workload, self._lose_workload),
                )
            ),
        ]

    def _see_service(self, service: Json) -> str:
        uid, owner = str(service["metadata"]["uid"]), owner_of(service)
        if owner is not None:
            self._services[uid] = owner
            self._mark(owner)
        return uid

    def _lose_service(self, uid: str) -> None:
        if (owner := self._services.pop(uid, None)) is not None:
            self._mark(owner)

    def _see_workload(self, workload: Json) -> UUID | None:
        owner = owner_of(workload)
        if owner is not None:
            self._workloads[owner] = workload
            self._mark(owner)
        return owner

    def _lose_workload(self, owner: UUID | None) -> None:
        if owner is not None:
            self._workloads.pop(owner, None)
            self._mark(owner)

    def _see_pod(self, pod: Json) -> str:
        uid, owner = str(pod["metadata"]["uid"]), owner_of(pod)
        if owner is not None:
            self._pods[owner][uid] = pod
            self._owners[uid] = owner
            # The log of a run that has ended goes with its pod, which a failed start takes away within a second.
            is_urgent = any(ended.key not in self._runs for ended in ended_runs(pod))
            self._rota.mark(owner, after_s=0 if is_urgent else _GATHER_S)
        return uid

    def _lose_pod(self, uid: str) -> None:
        owner = self._owners.pop(uid, None)
        self._events.forget(("", uid))
        for key in [key for key in self._runs if key[0] == uid]:
            del self._runs[key]
        if owner is not None:
            self._pods[owner].pop(uid, None)
            self._mark(owner)

    def _see_event(self, event: Json) -> tuple[Subject | None, str]:
        if subject := self._events.see(event):
            for owner in self._concerned(subject):
                self._mark(owner)
        return subject_of(event), str(event["metadata"]["name"])

    def _lose_event(self, key: tuple[Subject | None, str]) -> None:
        """Events expire; what they told of a pod of ours stays until the pod goes."""
        subject, _ = key
        if subject is not None and not self._concerned(subject):
            self._events.forget(subject)

    def _concerned(self, subject: Subject) -> set[UUID]:
        """Owners of the pods that an event of this speaks of."""
        namespace, name = subject
        if not namespace:
            return {self._owners[name]} if name in self._owners else set()
        every = ((owner, pod) for owner, pods in self._pods.items() for pod in pods.values())
        return {owner for owner, pod in every if subject in subjects_of(pod)}

    def _mark(self, owner: UUID) -> None:
        self._rota.mark(owner, after_s=_GATHER_S)

    # -- what is made of it ----------------------------------------------------------------------------------------

    async def _look(self, client: ClusterClient, owner: UUID) -> None:
        pods = list(self._pods.get(owner, {}).values())
        owed = [(pod, ended) for pod in pods for ended in ended_runs(pod) if self._is_owed(ended)]
        logs = await asyncio.gather(*(self._last_lines(client, pod, ended) for pod, ended in owed))
        runs = [self._runs.setdefault(ended.key, _Run()) for _, ended in owed]
        for run, lines in zip(runs, logs, strict=True):
            run.lines = lines[-_LINES_FOR_DIAGNOSIS:]
        try:
            with self._surprises(owner):
                again_s = await self._standings.write(owner, lambda: self._seen(owner))
                if again_s is not None:
                    self._rota.mark(owner, after_s=again_s)
            for (pod, ended), run, lines in zip(owed, runs, logs, strict=True):
                found = self._diagnose(pod)
                with self._surprises(owner):
                    await self._attempts.keep(owner, ended, lines, finding=found.type if found else None)
                    run.is_kept = True
                run.tries += 1
        except DatabaseUnavailable:
            self._rota.mark(owner, after_s=self._retry_s)
        for _, ended in owed:
            if ended.pod_uid not in self._owners:  # lost while its log was read
                self._runs.pop(ended.key, None)

    @contextmanager
    def _surprises(self, owner: UUID) -> Iterator[None]:
        """One row that surprises us must not end the watch of all the others; it is looked at again."""
        try:
            yield
        except DatabaseUnavailable:
            raise
        except DomainError as error:
            log.warning("deployment.look_failed", deployment_id=str(owner), error=type(error).__name__)
            self._rota.mark(owner, after_s=self._retry_s)

    def _is_owed(self, ended: Ended) -> bool:
        run = self._runs.get(ended.key)
        return run is None or not (run.is_kept or run.tries >= TRIES)

    def _seen(self, owner: UUID) -> Seen:
        pods = list(self._pods.get(owner, {}).values())
        findings = [found for pod in telling_of(pods) if (found := self._diagnose(pod))]
        return Seen(self._workloads.get(owner), pods, findings, is_reached=owner in self._services.values())

    async def _last_lines(self, client: ClusterClient, pod: Json, ended: Ended) -> list[str]:
        try:
            async with self._log_places:
                lines = await last_lines(client, str(pod["metadata"]["namespace"]), ended)
        except KubeError as error:
            # The pod may be gone by now; what its status says is all that is left.
            log.info("deployment.log_lost", pod=ended.pod, error=type(error).__name__)
            lines = []
        return lines or self._lines_of(ended)  # of an earlier try

    def _diagnose(self, pod: Json) -> Finding | None:
        if is_ready(pod):
            return None
        latest: dict[str, list[str]] = {}
        for ended in sorted(ended_runs(pod), key=lambda one: one.restart):
            latest[ended.container] = self._lines_of(ended)
        return diagnose(PodEvidence(pod, self._events.of(pod), latest, at=datetime.now(UTC)))

    def _lines_of(self, ended: Ended) -> list[str]:
        run = self._runs.get(ended.key)
        return run.lines if run else []


def telling_of(pods: Sequence[Json]) -> list[Json]:
    """The pods whose causes count, present ones first; those that ended or leave are history once others serve."""
    over = [pod for pod in pods if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}]
    leaving = [pod for pod in pods if pod not in over and pod["metadata"].get("deletionTimestamp")]
    present = [pod for pod in pods if pod not in over and pod not in leaving]
    if present and all(is_ready(pod) for pod in present):
        return present
    return [*present, *leaving] or over


def owner_of(item: Json) -> UUID | None:
    """The deployment that an object says it belongs to."""
    try:
        return UUID((item["metadata"].get("labels") or {}).get(LABEL_DEPLOYMENT))
    except (ValueError, TypeError, AttributeError):
        return None
