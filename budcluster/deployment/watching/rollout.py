"""Looks at a release in its cluster until it serves, or until it is clear that it never will."""

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from budcluster.deployment.watching.progress import Progress, progress_of, together
from budcluster.kube.client import ClusterClient
from budcluster.kube.diagnosis import Finding, PodEvidence, diagnose
from budcluster.kube.diagnosis.finding import Weight
from budcluster.kube.diagnosis.volumes import claims_of
from budcluster.kube.errors import Gone, KubeError, NotFound
from budcluster.kube.ownership import LABEL_DEPLOYMENT
from budcluster.kube.resources import DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS, Resource
from budcluster.kube.times import last_seen, moment
from budcluster.kube.workloads import is_observed, present_set

Json = Mapping[str, Any]

CONTAINER: Final = "runtime"
_TAIL: Final = 60
_WATCH_S: Final = 300
_PAUSE_S: Final = 1.0
_READ_AGAIN_S: Final = 10.0
_TEMPLATE_HASH: Final = "pod-template-hash"
_LOOKED_AT: Final = 8
"""Pods whose logs and events are read at a time: more copies fail for the same reasons."""

HOPELESS: Final = frozenset(
    {
        "architecture-unsupported", "bad-command", "bad-flag-value", "driver-too-old", "dtype-unsupported",
        "gpu-generation", "gpu-memory", "gpu-memory-warm-up", "gpu-share-too-small", "hami-multi-gpu", "host-memory",
        "illegal-instruction", "kv-cache-too-small", "lora-rank", "model-gated", "model-not-found-or-private",
        "model-token", "parallelism", "pod-security", "quantization-unsupported", "remote-code", "shared-memory",
        "unknown-flag", "weights-too-large", "context-too-long",
    }
)  # fmt: skip
"""Causes that time does not cure: the next start ends the same way."""
STUBBORN: Final = frozenset(
    {
        "image-absent",
        "image-name",
        "image-not-found",
        "image-platform",
        "image-signature",
        "policy",
        "registry-certificate",
        "registry-denied",
        "runtime-class-missing",
        "secret-missing",
    }
)
"""Causes that may pass within moments, and hardly ever later."""


@dataclass(frozen=True, slots=True)
class Target:
    """A release that should serve."""

    deployment_id: str
    namespace: str
    release: str
    replicas: int

    @property
    def selector(self) -> str:
        """Of everything that belongs to it."""
        return f"{LABEL_DEPLOYMENT}={self.deployment_id}"


@dataclass(frozen=True, slots=True)
class Sight:
    """The release at one moment."""

    done: bool
    """Every copy runs the wanted revision and is ready."""
    ready: int
    """Copies of any revision that answer."""
    progress: Progress
    finding: Finding | None


@dataclass(frozen=True, slots=True)
class _Read:
    """What a pod showed when it was read last."""

    version: str
    at: float
    evidence: PodEvidence


class Lookout:
    """Looks at one release. The cluster's errors pass through."""

    def __init__(self, client: ClusterClient, target: Target, *, since: datetime | None = None) -> None:
        """What was refused before `since`, when this attempt began, tells nothing of it."""
        self._client = client
        self._target = target
        self._since = since
        self._read: dict[str, _Read] = {}

    async def look(self) -> Sight:
        """The release now."""
        target = self._target
        try:
            owner = await self._client.get(DEPLOYMENTS, target.release, namespace=target.namespace)
        except NotFound:
            return Sight(False, 0, Progress(0, "The release is not in the cluster"), None)
        ready = int((owner.get("status") or {}).get("readyReplicas") or 0)
        present = present_set(owner, await self._list(REPLICA_SETS, label_selector=target.selector))
        if present is None:
            return Sight(_is_complete(owner, target.replicas), ready, Progress(0, "The cluster takes it up"), None)
        pods = await self._pods(present)
        evidence = await _together([self._evidence(pod) for pod in pods[:_LOOKED_AT]])
        if not pods and target.replicas:
            refusals = [event for event in await self._events(present) if happened_since(event, self._since)]
            evidence = [PodEvidence(pod={}, events=refusals)]
        findings = [found for item in evidence if (found := diagnose(item))]
        steps = [progress_of(item.pod, item.events, item.logs.get(CONTAINER, ())) for item in evidence if item.pod]
        steps += [progress_of(pod, (), ()) for pod in pods[_LOOKED_AT:]]
        return Sight(
            done=_is_complete(owner, target.replicas),
            ready=ready,
            progress=together(steps, target.replicas) if target.replicas else Progress(50, "Stopping the copies"),
            finding=max(findings, key=lambda finding: finding.weight, default=None),
        )

    async def ring_on_change(self, bell: asyncio.Event) -> None:
        """Set the bell whenever the release or a pod of it changes. Runs until cancelled; outages only delay it."""
        await asyncio.gather(self._ring(DEPLOYMENTS, bell), self._ring(PODS, bell))

    async def _ring(self, resource: Resource, bell: asyncio.Event) -> None:
        version = ""
        while True:
            try:
                if not version:
                    version = await self._version(resource)
                    bell.set()
                events = self._client.watch(
                    resource, resource_version=version, namespace=self._target.namespace,
                    label_selector=self._target.selector, timeout_s=_WATCH_S,
                )  # fmt: skip
                async with contextlib.aclosing(events) as stream:
                    async for event in stream:
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            bell.set()
            except Gone:
                version = ""
            except KubeError:
                await asyncio.sleep(_PAUSE_S)

    async def _version(self, resource: Resource) -> str:
        pages = self._client.list_pages(
            resource, namespace=self._target.namespace, label_selector=self._target.selector, limit=1
        )
        async with contextlib.aclosing(pages) as listed:
            async for page in listed:
                return str(page["metadata"]["resourceVersion"])
        return ""

    async def _pods(self, replica_set: Json) -> list[Json]:
        template = (replica_set["metadata"].get("labels") or {}).get(_TEMPLATE_HASH, "")
        pods = await self._list(PODS, label_selector=f"{self._target.selector},{_TEMPLATE_HASH}={template}")
        live = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        active = [pod for pod in live if (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}]
        return active or live

    async def _evidence(self, pod: Json) -> PodEvidence:
        """What a pod shows. One that has not changed is read again only after a while."""
        conditions = {c.get("type"): c.get("status") for c in (pod.get("status") or {}).get("conditions") or ()}
        if conditions.get("Ready") == "True":
            return PodEvidence(pod)
        uid, version = pod["metadata"]["uid"], pod["metadata"]["resourceVersion"]
        now = asyncio.get_running_loop().time()
        known = self._read.get(uid)
        if known is None or known.version != version or now - known.at >= _READ_AGAIN_S:
            events = await self._events(pod)
            if conditions.get("PodScheduled") != "True":
                events += await self._claim_events(pod)
            evidence = PodEvidence(pod, events, {CONTAINER: await self._log(pod)}, at=datetime.now(UTC))
            known = self._read[uid] = _Read(version, now, evidence)
        return known.evidence

    async def _claim_events(self, pod: Json) -> list[Json]:
        """What is said of the volumes that a pod waits for."""
        fields = "involvedObject.kind=PersistentVolumeClaim,involvedObject.name="
        return [event for name in claims_of(pod) for event in await self._list(EVENTS, field_selector=fields + name)]

    async def _events(self, about: Json) -> list[Json]:
        return await self._list(EVENTS, field_selector=f"involvedObject.uid={about['metadata']['uid']}")

    async def _log(self, pod: Json) -> list[str]:
        """The end of the log of the container that runs, or of the one that ended last."""
        containers = (pod.get("status") or {}).get("containerStatuses") or []
        runtime: Json = next((status for status in containers if status.get("name") == CONTAINER), {})
        state = runtime.get("state") or {}
        if not state.get("running") and not state.get("terminated") and not runtime.get("restartCount"):
            return []
        lines = self._client.log_lines(
            self._target.namespace, pod["metadata"]["name"], container=CONTAINER, tail_lines=_TAIL,
            previous=not state.get("running") and not state.get("terminated"), silence_s=10,
        )  # fmt: skip
        try:
            return [line async for line in lines]
        except KubeError:
            return []  # the container changed meanwhile; the next look finds it

    async def _list(self, resource: Resource, **selected: str) -> list[Json]:
        pages = self._client.list_pages(resource, namespace=self._target.namespace, **selected)  # type: ignore[arg-type]
        return [item async for page in pages for item in page.get("items") or ()]


async def _together(looks: Sequence[Awaitable[PodEvidence]]) -> list[PodEvidence]:
    """All at once; the first error is raised when every look has ended."""
    found = await asyncio.gather(*looks, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [one for one in found if isinstance(one, PodEvidence)]


def happened_since(event: Json, since: datetime | None) -> bool:
    """Whether an event was last seen then or later.

    The clocks of cluster and service differ a little: one that is behind delays what the event tells, no more.
    """
    at = last_seen(event) or moment(event["metadata"].get("creationTimestamp"))
    return since is None or at is None or at >= since.replace(microsecond=0)


def _is_complete(owner: Json, replicas: int) -> bool:
    """As `kubectl rollout status` decides (Kubernetes 1.36), and no copy too many."""
    status = owner.get("status") or {}
    counted = [int(status.get(name) or 0) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    copies = int((owner.get("spec") or {}).get("replicas") or 0)
    return is_observed(owner) and copies == replicas and counted == [replicas] * 3


async def settled(lookout: Lookout, patience_s: float) -> Sight:
    """The release once all copies are ready, or as it is when that takes longer."""
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        sight = await lookout.look()
        if sight.done or asyncio.get_running_loop().time() >= deadline:
            return sight
        await asyncio.sleep(_PAUSE_S)


def is_final(finding: Finding, seen_for_s: float, *, patience_s: float) -> bool:
    """Whether waiting on is useless."""
    if finding.weight is not Weight.CAUSE:
        return False
    return finding.type in HOPELESS or (finding.type in STUBBORN and seen_for_s >= patience_s)
