"""Whether an add-on's pods come up, and what is wrong with those that never will.

Pods that run once on each node are not waited for here: a node that is down would hold up all others.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from budcluster.hardware.addons import Addon, AddonFailed
from budcluster.hardware.readiness import is_ready
from budcluster.kube.client import ClusterClient
from budcluster.kube.resources import DEPLOYMENTS, EVENTS, NODES, PODS, STATEFUL_SETS

_POLL_S: Final = 1.0
_GONE_S: Final = 60.0
_CRASHES: Final = 4
"""A container that ended this often and waits to be tried again will not run: kubelet pauses for minutes by now."""
_PULL: Final = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName"})
_PULL_S: Final = 45.0
"""How long images may fail to be pulled for another reason than that they do not exist."""
_ABSENT: Final = ("not found", "invalidimagename", "couldn't parse image", "manifest unknown", "does not exist")
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
    """Wait until the release's controllers have all their replicas ready. Raises NotUp, KubeError."""
    began = asyncio.get_running_loop().time()
    selector = f"app.kubernetes.io/instance={addon.release}"
    while True:
        late_ones = await late(client, release=addon.release, namespace=addon.namespace)
        if not late_ones:
            return
        waited_s = asyncio.get_running_loop().time() - began
        pods = await _pods(client, namespace=addon.namespace, selector=selector)
        prefixes = tuple(f"{one}-" for one in late_ones)
        belonging = [pod for pod in pods if str(pod["metadata"]["name"]).startswith(prefixes)]
        told = await _pull_errors(client, addon.namespace, belonging)
        if found := broken(belonging, told=told, or_pulling=waited_s >= min(_PULL_S, timeout_s)):
            raise NotUp(_sentence(addon, found[0]))
        if waited_s >= timeout_s:
            raise NotUp(f"{', '.join(late_ones)} did not become ready within {timeout_s:.0f} s.")
        await asyncio.sleep(_POLL_S)


async def late(client: ClusterClient, *, release: str, namespace: str) -> list[str]:
    """Names of the release's Deployments and StatefulSets that are not up. Raises KubeError."""
    selector = f"app.kubernetes.io/instance={release}"
    return [
        str(workload["metadata"]["name"])
        for kind in (DEPLOYMENTS, STATEFUL_SETS)
        async for page in client.list_pages(kind, namespace=namespace, label_selector=selector)
        for workload in page["items"]
        if not is_up(workload)
    ]


async def wait_until_gone(client: ClusterClient, *, release: str, namespace: str) -> None:
    """Wait until the removed release's pods have ended; not for long, since those of a dead node never do."""
    deadline = asyncio.get_running_loop().time() + _GONE_S
    selector = f"app.kubernetes.io/instance={release}"
    while await _pods(client, namespace=namespace, selector=selector):
        if asyncio.get_running_loop().time() >= deadline:
            return
        await asyncio.sleep(_POLL_S)


async def has_ready_node(client: ClusterClient) -> bool:
    """Whether any node could run a pod. Raises KubeError."""
    async for page in client.list_pages(NODES):
        if any(is_ready(node) and not (node.get("spec") or {}).get("unschedulable") for node in page["items"]):
            return True
    return False


def is_up(workload: Mapping[str, Any]) -> bool:
    """Whether a Deployment or StatefulSet has all replicas of its present template ready."""
    status = workload.get("status") or {}
    wanted = (workload.get("spec") or {}).get("replicas", 1)
    return bool(
        status.get("observedGeneration", 0) >= workload["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("readyReplicas", 0) >= wanted
    )


def broken(
    pods: Iterable[Mapping[str, Any]], *, told: Mapping[str, str] | None = None, or_pulling: bool = False
) -> list[Broken]:
    """Containers that crash again and again, or whose image does not exist; or cannot be pulled just now, if asked.

    Pods that are being deleted are on their way to be replaced, and do not count. `told` is
    what events say of a pod's images, by its name.
    """
    found = []
    for pod in _current(pods):
        for container in _containers(pod):
            by_events = (told or {}).get(str(pod["metadata"]["name"]), "")
            if reason := _hopeless(container, by_events, or_pulling=or_pulling):
                name, image = str(container.get("name")), str(container.get("image", ""))
                found.append(Broken(str(pod["metadata"]["name"]), name, reason, image, _waits_for_image(container)))
    return found


def _current(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [pod for pod in pods if not (pod.get("metadata") or {}).get("deletionTimestamp")]


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _waits_for_image(container: Mapping[str, Any]) -> bool:
    return (container.get("state") or {}).get("waiting", {}).get("reason") in _PULL


def _hopeless(container: Mapping[str, Any], by_events: str, *, or_pulling: bool) -> str | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in _PULL:
        lines = [line for line in by_events.splitlines() if str(container.get("image")) in line]
        if any(word in " ".join((reason, message, *lines)).lower() for word in _ABSENT):
            return f"there is no image {container.get('image', '')}"
        return f"its image {container.get('image', '')} cannot be pulled" if or_pulling else None
    if reason == "CrashLoopBackOff" and int(container.get("restartCount", 0)) >= _CRASHES:
        ended = (container.get("lastState") or {}).get("terminated") or {}
        said = str(ended.get("message") or "").strip().splitlines()
        return f"it crashes again and again, with exit code {ended.get('exitCode', 'unknown')}" + (
            f" ({said[-1][:_SAID]})" if said else ""
        )
    return None


def _sentence(addon: Addon, found: Broken) -> str:
    advice = next((advice for part, advice in addon.image_advice.items() if found.is_pull and part in found.image), "")
    return f"{found}." + (f" {advice}" if advice else "")


async def _pull_errors(client: ClusterClient, namespace: str, pods: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What events say of images that cannot be pulled: most of the time a pod itself says no more than that."""
    told = {}
    for pod in pods:
        if any(_waits_for_image(container) for container in _containers(pod)):
            name = str(pod["metadata"]["name"])
            pages = client.list_pages(EVENTS, namespace=namespace, field_selector=f"involvedObject.name={name}")
            events = [event async for page in pages for event in page["items"]]
            told[name] = "\n".join(str(event.get("message")) for event in events if event.get("reason") == "Failed")
    return told


async def _pods(client: ClusterClient, *, namespace: str, selector: str) -> list[Mapping[str, Any]]:
    pages = client.list_pages(PODS, namespace=namespace, label_selector=selector)
    return [pod async for page in pages for pod in page["items"]]
