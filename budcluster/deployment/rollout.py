"""Looks at a release in its cluster until it serves, or until it is clear that it never will."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from budcluster.deployment.progress import Progress, progress_of, together
from budcluster.deployment.values import LABEL_DEPLOYMENT
from budcluster.kube.client import ClusterClient
from budcluster.kube.diagnosis import Finding, PodEvidence, diagnose
from budcluster.kube.diagnosis.finding import Weight
from budcluster.kube.diagnosis.volumes import claims_of
from budcluster.kube.errors import Gone, KubeError, NotFound
from budcluster.kube.resources import EVENTS, PODS, REPLICA_SETS, Resource

DEPLOYMENTS: Final = Resource("apps", "v1", "deployments")
CONTAINER: Final = "runtime"
_TAIL: Final = 60
_WATCH_S: Final = 300
_PAUSE_S: Final = 1.0
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


class Lookout:
    """Looks at one release. The cluster's errors pass through."""

    def __init__(self, client: ClusterClient, target: Target) -> None:
        self._client = client
        self._target = target

    async def look(self) -> Sight:
        """The release now."""
        target = self._target
        try:
            owner = await self._client.get(DEPLOYMENTS, target.release, namespace=target.namespace)
        except NotFound:
            return Sight(False, 0, Progress(0, "The release is not in the cluster"), None)
        pods = await self._pods(await self._newest_hash())
        evidence = [await self._evidence(pod) for pod in pods[:_LOOKED_AT]]
        if not pods and target.replicas:
            evidence = [PodEvidence(pod={}, events=await self._events("ReplicaSet", prefix=f"{target.release}-"))]
        findings = [found for item in evidence if (found := diagnose(item))]
        steps = [progress_of(item.pod, item.events, item.logs.get(CONTAINER, ())) for item in evidence if item.pod]
        steps += [progress_of(pod, (), ()) for pod in pods[_LOOKED_AT:]]
        status = owner.get("status") or {}
        return Sight(
            done=_is_complete(owner, target.replicas),
            ready=int(status.get("readyReplicas") or 0),
            progress=together(steps, target.replicas) if target.replicas else Progress(50, "Stopping the copies"),
            finding=max(findings, key=lambda finding: finding.weight, default=None),
        )

    async def ring_on_change(self, bell: asyncio.Event) -> None:
        """Set the bell whenever a pod of the release changes. Runs until cancelled; outages only delay it."""
        version = ""
        while True:
            try:
                if not version:
                    version = await self._version()
                    bell.set()
                events = self._client.watch(
                    PODS, resource_version=version, namespace=self._target.namespace,
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

    async def _version(self) -> str:
        pages = self._client.list_pages(
            PODS, namespace=self._target.namespace, label_selector=self._target.selector, limit=1
        )
        async with contextlib.aclosing(pages) as listed:
            async for page in listed:
                return str(page["metadata"]["resourceVersion"])
        return ""

    async def _newest_hash(self) -> str | None:
        sets = await self._list(REPLICA_SETS, label_selector=self._target.selector)
        if not sets:
            return None
        newest = max(sets, key=_generation)
        return str((newest["metadata"].get("labels") or {}).get("pod-template-hash", "")) or None

    async def _pods(self, template: str | None) -> list[dict[str, Any]]:
        selector = self._target.selector + (f",pod-template-hash={template}" if template else "")
        pods = await self._list(PODS, label_selector=selector)
        live = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        active = [pod for pod in live if (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}]
        return active or live

    async def _evidence(self, pod: Mapping[str, Any]) -> PodEvidence:
        conditions = {c.get("type"): c.get("status") for c in (pod.get("status") or {}).get("conditions") or ()}
        if conditions.get("Ready") == "True":
            return PodEvidence(pod)
        events = await self._events("Pod", name=pod["metadata"]["name"])
        if conditions.get("PodScheduled") != "True":
            for claim in claims_of(pod):
                events += await self._events("PersistentVolumeClaim", name=claim)
        return PodEvidence(pod, events, {CONTAINER: await self._log(pod)}, at=datetime.now(UTC))

    async def _events(self, kind: str, *, name: str = "", prefix: str = "") -> list[Mapping[str, Any]]:
        fields = f"involvedObject.kind={kind}" + (f",involvedObject.name={name}" if name else "")
        found = await self._list(EVENTS, field_selector=fields)
        return [event for event in found if str(event["involvedObject"].get("name", "")).startswith(prefix)]

    async def _log(self, pod: Mapping[str, Any]) -> list[str]:
        """The end of the log of the container that runs, or of the one that ended last."""
        containers = (pod.get("status") or {}).get("containerStatuses") or []
        runtime: Mapping[str, Any] = next((status for status in containers if status.get("name") == CONTAINER), {})
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

    async def _list(self, resource: Resource, **selected: str) -> list[dict[str, Any]]:
        pages = self._client.list_pages(resource, namespace=self._target.namespace, **selected)  # type: ignore[arg-type]
        return [item async for page in pages for item in page.get("items") or ()]


def _is_complete(owner: Mapping[str, Any], replicas: int) -> bool:
    """As `kubectl rollout status` decides (Kubernetes 1.36), and no copy too many."""
    status, spec = owner.get("status") or {}, owner.get("spec") or {}
    counted = [int(status.get(name) or 0) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    return (
        int(status.get("observedGeneration") or 0) >= int(owner["metadata"].get("generation") or 0)
        and int(spec.get("replicas") or 0) == replicas
        and counted == [replicas] * 3
    )


def _generation(replica_set: Mapping[str, Any]) -> int:
    annotations = replica_set["metadata"].get("annotations") or {}
    return int(annotations.get("deployment.kubernetes.io/revision") or 0)


async def settled(lookout: Lookout, patience_s: float) -> Sight:
    """The release once all copies are ready, or as it is when that takes too long or cannot come to be."""
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        sight = await lookout.look()
        hopeless = sight.finding is not None and is_final(sight.finding, 0, patience_s=1)
        if sight.done or hopeless or asyncio.get_running_loop().time() >= deadline:
            return sight
        await asyncio.sleep(_PAUSE_S)


def is_final(finding: Finding, seen_for_s: float, *, patience_s: float) -> bool:
    """Whether waiting on is useless."""
    if finding.weight is not Weight.CAUSE:
        return False
    return finding.type in HOPELESS or (finding.type in STUBBORN and seen_for_s >= patience_s)
