"""Watches one cluster's model runtimes and writes what is true of them into their rows.

Changes come from watches; a deployment that changed is looked at once, half a second later. Only where waiting is part
of the answer (damping) it is looked at again without a change.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final
from uuid import UUID

import structlog

from budcluster.cluster.access import NoCredential
from budcluster.deployment.attempts import Attempts, Ended, ended_runs, last_lines
from budcluster.deployment.standing import Standings
from budcluster.deployment.status import Seen, is_ready
from budcluster.deployment.values import LABEL_DEPLOYMENT
from budcluster.kit.cancellation import raise_if_cancelled
from budcluster.kit.database import DatabaseUnavailable
from budcluster.kit.errors import DomainError
from budcluster.kube.client import ClusterClient
from budcluster.kube.diagnosis import Finding, PodEvidence, diagnose
from budcluster.kube.door import Door
from budcluster.kube.errors import KubeError
from budcluster.kube.follower import Follower
from budcluster.kube.refusals import KubeconfigRefused
from budcluster.kube.resources import DEPLOYMENTS, EVENTS, PODS

log = structlog.get_logger(__name__)

Json = Mapping[str, Any]
_RunKey = tuple[str, str, int]

_GATHER_S: Final = 0.5
"""What changes within this time is looked at once."""
_RETRY_S: Final = 2.0
_PAUSES: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
_EVENTS_KEPT: Final = 20
"""Of each pod."""
_LINES_FOR_DIAGNOSIS: Final = 400
_NO_ACCESS: Final = (KubeError, NoCredential, KubeconfigRefused, DomainError)


class ClusterEye:
    """One cluster's model runtimes, for as long as this task runs."""

    def __init__(
        self,
        open_door: Callable[[], AbstractAsyncContextManager[Door]],
        standings: Standings,
        attempts: Attempts,
        namespaces: frozenset[str],
    ) -> None:
        self._open_door = open_door
        self._standings = standings
        self._attempts = attempts
        self._namespaces = namespaces
        self._workloads: dict[UUID, Json] = {}
        self._pods: dict[UUID, dict[str, Json]] = defaultdict(dict)
        self._owners: dict[str, UUID] = {}
        self._events: dict[str, deque[Json]] = {}
        self._ends: dict[_RunKey, list[str]] = {}
        self._due: dict[UUID, float] = {}
        self._woken = asyncio.Event()
        self._complete = False
        self._followers = [follower for namespace in sorted(namespaces) for follower in self._followers_of(namespace)]

    async def run(self) -> None:
        """Until cancelled. Survives outages of the cluster and of the database."""
        failures = 0
        while True:
            try:
                # In a task of its own: a group whose child fails leaves its own task marked as cancelled (Python 3.11).
                await asyncio.create_task(self._visit())
            except* _NO_ACCESS as group:
                log.info("deployments.watch_interrupted", error=type(group.exceptions[0]).__name__)
            # One that fails while it is cancelled tells of the failure only.
            raise_if_cancelled()
            failures = 0 if self._complete else failures + 1
            self._complete = False
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])

    def look_at(self, deployment_id: UUID) -> None:
        """Look at a deployment soon, though nothing changed in the cluster."""
        self._mark(deployment_id)

    async def _visit(self) -> None:
        async with self._open_door() as door:
            await self._see(door.client)

    async def _see(self, client: ClusterClient) -> None:
        for follower in self._followers:
            await follower.list(client)
        self._complete = True
        for deployment_id in await self._standings.all_ids() | self._workloads.keys():
            self._mark(deployment_id)
        async with asyncio.TaskGroup() as group:
            for follower in self._followers:
                group.create_task(follower.watch(client, lambda: None))
            group.create_task(self._work(client))

    # -- what is seen ----------------------------------------------------------------------------------------------

    def _followers_of(self, namespace: str) -> list[Follower[Any]]:
        return [
            Follower(EVENTS, self._see_event, self._lose_event, namespace=namespace, optional=True),
            Follower(PODS, self._see_pod, self._lose_pod, namespace=namespace, label_selector=LABEL_DEPLOYMENT),
            Follower(
                DEPLOYMENTS,
                self._see_workload,
                self._lose_workload,
                namespace=namespace,
                label_selector=LABEL_DEPLOYMENT,
            ),
        ]

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
            self._mark(owner)
        return uid

    def _lose_pod(self, uid: str) -> None:
        owner = self._owners.pop(uid, None)
        self._events.pop(uid, None)
        for key in [key for key in self._ends if key[0] == uid]:
            del self._ends[key]
        if owner is not None:
            self._pods[owner].pop(uid, None)
            self._mark(owner)

    def _see_event(self, event: Json) -> tuple[str, str]:
        uid = str((event.get("involvedObject") or {}).get("uid") or "")
        if uid and event.get("type") != "Normal":
            self._events.setdefault(uid, deque(maxlen=_EVENTS_KEPT)).append(event)
            if uid in self._owners:
                self._mark(self._owners[uid])
        return uid, str(event["metadata"]["name"])

    def _lose_event(self, key: tuple[str, str]) -> None:
        """Events expire; what they told of a pod of ours stays until the pod goes."""
        if key[0] not in self._owners:
            self._events.pop(key[0], None)

    def _mark(self, owner: UUID, *, after_s: float = _GATHER_S) -> None:
        due = asyncio.get_running_loop().time() + after_s
        self._due[owner] = min(due, self._due.get(owner, due))
        self._woken.set()

    # -- what is made of it ----------------------------------------------------------------------------------------

    async def _work(self, client: ClusterClient) -> None:
        now = asyncio.get_running_loop().time
        while True:
            raise_if_cancelled()
            self._woken.clear()
            for owner in [owner for owner, due in self._due.items() if due <= now()]:
                del self._due[owner]
                try:
                    await self._look(client, owner)
                except DatabaseUnavailable:
                    self._mark(owner, after_s=_RETRY_S)
            wait = min(self._due.values(), default=now() + 60) - now()
            try:
                async with asyncio.timeout(max(wait, 0.01)):
                    await self._woken.wait()
            except TimeoutError:
                continue
            if wait > 0:
                await asyncio.sleep(min(wait, 0.05))

    async def _look(self, client: ClusterClient, owner: UUID) -> None:
        pods = list(self._pods.get(owner, {}).values())
        ends = [(pod, ended) for pod in pods for ended in ended_runs(pod)]
        new = [(pod, ended) for pod, ended in ends if ended.key not in self._ends]
        for pod, ended in new:
            self._ends[ended.key] = await self._last_lines(client, pod, ended)
        findings = {str(pod["metadata"]["uid"]): self._diagnose(pod) for pod in pods}
        seen = Seen(self._workloads.get(owner), pods, [one for one in findings.values() if one])
        again_s = await self._standings.write(owner, seen)
        for _, ended in new:
            found = findings[ended.pod_uid]
            await self._attempts.keep(owner, ended, self._ends[ended.key], finding=found.type if found else None)
            self._ends[ended.key] = self._ends[ended.key][-_LINES_FOR_DIAGNOSIS:]
        if again_s is not None:
            self._mark(owner, after_s=again_s)

    async def _last_lines(self, client: ClusterClient, pod: Json, ended: Ended) -> list[str]:
        try:
            return await last_lines(client, str(pod["metadata"]["namespace"]), ended)
        except KubeError as error:
            # The pod may be gone by now; what its status says is all that is left.
            log.info("deployment.log_lost", pod=ended.pod, error=type(error).__name__)
            return []

    def _diagnose(self, pod: Json) -> Finding | None:
        if is_ready(pod) or pod["metadata"].get("deletionTimestamp"):
            return None
        latest: dict[str, list[str]] = {}
        for ended in sorted(ended_runs(pod), key=lambda one: one.restart):
            latest[ended.container] = self._ends.get(ended.key, [])
        events = self._events.get(str(pod["metadata"]["uid"]), ())
        return diagnose(PodEvidence(pod, list(events), latest))


def owner_of(item: Json) -> UUID | None:
    """The deployment that an object says it belongs to."""
    try:
        return UUID((item["metadata"].get("labels") or {}).get(LABEL_DEPLOYMENT))
    except (ValueError, TypeError, AttributeError):
        return None
