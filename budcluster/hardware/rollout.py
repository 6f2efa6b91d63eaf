"""Whether an add-on's pods come up, and what is wrong with those that never will.

Pods that run once on each node are not waited for here: a node that is down would hold up all others.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from budcluster.hardware.addons import Addon, AddonFailed
from budcluster.hardware.reading.readiness import is_ready
from budcluster.kube.client import ClusterClient
from budcluster.kube.diagnosis.admission import explain_refusal
from budcluster.kube.diagnosis.finding import Finding
from budcluster.kube.diagnosis.images import explain_image, explain_pull
from budcluster.kube.errors import Conflict
from budcluster.kube.resources import (
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    NODES,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Resource,
)
from budcluster.kube.workloads import controller_of, is_observed, present_pods, uid_of

Json = Mapping[str, Any]

_POLL_S: Final = 1.0
_GONE_S: Final = 60.0
_TAKEN_UP_S: Final = 10.0
"""How long controllers may take to see what Helm has changed: they need milliseconds, unless they are down."""
_CRASHES: Final = 4
"""A container that ended this often and waits to be tried again will not run: kubelet pauses for minutes by now."""
_NEVER: Final = frozenset({"image-name", "image-not-found", "image-platform"})
"""Why an image cannot be had that time does not mend."""
_PULL_S: Final = 45.0
"""How long images may fail to be pulled for other reasons."""
_RELEASE: Final = "meta.helm.sh/release-name"
_SAID: Final = 300


class NotUp(AddonFailed):
    """The add-on's pods do not run; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A container that will not run without somebody's help."""

    pod: str
    container: str
    reason: str
    image: str
    is_pull: bool

    def __str__(self) -> str:
        return f"{self.container} of {self.pod}: {self.reason}"


async def wait_until_up(client: ClusterClient, addon: Addon, *, timeout_s: float) -> None:
    """Wait until the release's controllers have all their replicas ready. Raises NotUp, KubeError.

    Only pods of a controller's present template tell that they never will.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    selected = _of_release(addon.release, addon.namespace)
    while True:
        late_ones = await late(client, release=addon.release, namespace=addon.namespace)
        if not late_ones:
            return
        waited_s = clock() - began
        sets = await listed(client, REPLICA_SETS, **selected)
        pods = present_pods(late_ones, sets, await listed(client, PODS, **selected))
        told = await _pull_errors(client, pods)
        if found := broken(pods, told=told, or_pulling=waited_s >= min(_PULL_S, timeout_s)):
            raise NotUp(_sentence(addon, found[0]))
        if waited_s >= timeout_s:
            names = ", ".join(str(one["metadata"]["name"]) for one in late_ones)
            raise NotUp(_refusal(late_ones) or f"{names} did not become ready within {timeout_s:.0f} s.")
        await asyncio.sleep(_POLL_S)


async def late(client: ClusterClient, *, release: str, namespace: str) -> list[Json]:
    """The release's Deployments and StatefulSets that are not up. Raises KubeError."""
    found = await _workloads(client, (DEPLOYMENTS, STATEFUL_SETS), release, namespace)
    return [workload for workload in found if not is_up(workload)]


async def retry_stuck(client: ClusterClient, addon: Addon) -> None:
    """Delete the pods of a release of ours that wait in a backoff: what kept them may have been mended since.

    Kubelet would look again only after minutes; the pods that take their places are tried at once. Not before the
    controllers have taken up what Helm changed: a StatefulSet would make the same pod again. Raises KubeError.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + _TAKEN_UP_S
    while True:
        kinds = (DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS)
        found = await _workloads(client, kinds, addon.release, addon.namespace)
        ours = [one for one in found if (one["metadata"].get("annotations") or {}).get(_RELEASE) == addon.release]
        if all(map(is_observed, ours)) or clock() >= deadline:
            break
        await asyncio.sleep(_POLL_S)
    selected = _of_release(addon.release, addon.namespace)
    makers = {uid_of(one) for one in ours}
    makers |= {uid_of(one) for one in await listed(client, REPLICA_SETS, **selected) if controller_of(one) in makers}
    for pod in await listed(client, PODS, **selected):
        if controller_of(pod) in makers and any(map(_backs_off, _containers(pod))):
            with suppress(Conflict):  # another pod has its name by now
                await client.delete(PODS, str(pod["metadata"]["name"]), namespace=addon.namespace, uid=uid_of(pod))


async def wait_until_gone(client: ClusterClient, *, release: str, namespace: str) -> None:
    """Wait until the removed release's pods have ended; not for long, since those of a dead node never do."""
    deadline = asyncio.get_running_loop().time() + _GONE_S
    while await listed(client, PODS, **_of_release(release, namespace)):
        if asyncio.get_running_loop().time() >= deadline:
            return
        await asyncio.sleep(_POLL_S)


async def has_ready_node(client: ClusterClient) -> bool:
    """Whether any node could run a pod. Raises KubeError."""
    async for page in client.list_pages(NODES):
        if any(is_ready(node) and not (node.get("spec") or {}).get("unschedulable") for node in page["items"]):
            return True
    return False


async def listed(
    client: ClusterClient,
    kind: Resource,
    *,
    namespace: str | None = None,
    label_selector: str = "",
    field_selector: str = "",
) -> list[Json]:
    """All objects of a kind that are selected. Raises KubeError."""
    pages = client.list_pages(kind, namespace=namespace, label_selector=label_selector, field_selector=field_selector)
    return [item async for page in pages for item in page["items"]]


def is_up(workload: Json) -> bool:
    """Whether a Deployment or StatefulSet has all replicas of its present template ready."""
    status = workload.get("status") or {}
    wanted = (workload.get("spec") or {}).get("replicas", 1)
    return bool(
        is_observed(workload)
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("readyReplicas", 0) >= wanted
    )


def broken(
    pods: Iterable[Json], *, told: Mapping[str, Sequence[str]] | None = None, or_pulling: bool = False
) -> list[Broken]:
    """Containers that crash again and again, or whose image will never be had; or cannot be had just now, if asked.

    Pods that are being deleted are on their way to be replaced, and do not count. `told` is
    what events say of a pod's images, by its name.
    """
    found = []
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        name = str(pod["metadata"]["name"])
        for container in _containers(pod):
            cause = _image_cause(container, (told or {}).get(name, ()))
            if reason := _hopeless(container, cause, or_pulling=or_pulling):
                image = str(container.get("image", ""))
                found.append(Broken(name, str(container.get("name")), reason, image, cause is not None))
    return found


def _containers(pod: Json) -> list[Json]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _waiting(container: Json) -> tuple[str, str]:
    waiting = (container.get("state") or {}).get("waiting") or {}
    return str(waiting.get("reason", "")), str(waiting.get("message", ""))


def _image_cause(container: Json, told: Iterable[str] = ()) -> Finding | None:
    """Why a container's image cannot be had; None where it does not wait for one."""
    found = explain_image(*_waiting(container))
    if found is None:
        return None
    causes = [found, *(explain_pull(line) for line in told if str(container.get("image")) in line)]
    return max(causes, key=lambda cause: (cause.type in _NEVER, cause.weight))


def _backs_off(container: Json) -> bool:
    """Whether kubelet waits for minutes before it tries the container again, or will after the next failure."""
    if container.get("ready"):
        return False
    is_crashing = _waiting(container)[0] == "CrashLoopBackOff" or int(container.get("restartCount", 0)) >= _CRASHES
    return is_crashing or _image_cause(container) is not None


def _hopeless(container: Json, cause: Finding | None, *, or_pulling: bool) -> str | None:
    if cause is not None:
        said = f"{cause.detail.removesuffix('.')} ({container.get('image', '')})"
        return said if or_pulling or cause.type in _NEVER else None
    if _waiting(container)[0] == "CrashLoopBackOff" and int(container.get("restartCount", 0)) >= _CRASHES:
        ended = (container.get("lastState") or {}).get("terminated") or {}
        lines = str(ended.get("message") or "").strip().splitlines()
        return f"it crashes again and again, with exit code {ended.get('exitCode', 'unknown')}" + (
            f" ({lines[-1][:_SAID]})" if lines else ""
        )
    return None


def _refusal(workloads: Iterable[Json]) -> str | None:
    """Why the API server takes no pods of theirs, and what to do; None where it takes them."""
    for workload in workloads:
        for condition in (workload.get("status") or {}).get("conditions") or ():
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                found = explain_refusal(str(condition.get("message", "")))
                return f"{workload['metadata']['name']} has no pods. {found.detail} {found.fix}"
    return None


def _sentence(addon: Addon, found: Broken) -> str:
    advice = next((advice for part, advice in addon.image_advice.items() if found.is_pull and part in found.image), "")
    return f"{found}." + (f" {advice}" if advice else "")


async def _pull_errors(client: ClusterClient, pods: Iterable[Json]) -> dict[str, list[str]]:
    """What events say of images that cannot be pulled: most of the time a pod itself says no more than that."""
    told = {}
    for pod in pods:
        if any(_image_cause(container) for container in _containers(pod)):
            # By uid: a StatefulSet gives a name again.
            about = {"namespace": pod["metadata"]["namespace"], "field_selector": f"involvedObject.uid={uid_of(pod)}"}
            events = await listed(client, EVENTS, **about)
            told[str(pod["metadata"]["name"])] = [
                str(event.get("message")) for event in events if event.get("reason") == "Failed"
            ]
    return told


async def _workloads(client: ClusterClient, kinds: Iterable[Resource], release: str, namespace: str) -> list[Json]:
    return [one for kind in kinds for one in await listed(client, kind, **_of_release(release, namespace))]


def _of_release(release: str, namespace: str) -> dict[str, str]:
    return {"namespace": namespace, "label_selector": f"app.kubernetes.io/instance={release}"}
