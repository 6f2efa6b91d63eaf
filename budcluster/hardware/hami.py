"""HAMi 2.10: shares of GPUs with a limit on memory and cores. How it is installed, and when nodes offer shares."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from budcluster.config import AddonSettings
from budcluster.hardware import rollout
from budcluster.hardware.addons import Addon, AddonFailed, Platform, Surroundings
from budcluster.hardware.models import AddonName
from budcluster.hardware.reading.hami_annotations import REGISTER
from budcluster.hardware.reading.nvidia import RESOURCE
from budcluster.hardware.reading.readiness import is_ready
from budcluster.hardware.survey import has_nvidia, nvidia_nodes, pause_after
from budcluster.kube.client import ClusterClient
from budcluster.kube.door import Door
from budcluster.kube.resources import DAEMON_SETS, NODES, PODS
from budcluster.kube.workloads import present_pods

RELEASE: Final = "hami"
NAMESPACE: Final = "kube-system"
NODE_LABEL: Final = "gpu"
NODE_VALUE: Final = "on"
MARK: Final = "budcluster.io/hami"
"""Label of the nodes that our HAMi manages; `playbooks/install_hami.yml` sets it and takes back what bears it."""
_PLUGINS: Final = "app.kubernetes.io/component=hami-device-plugin"
_RELEASE_S: Final = 45.0
"""Kubelet reports a plugin that went away at its next status, which it sends every ten seconds."""
_PLAYBOOK_S: Final = 300.0
_NAMED: Final = 5
_RUNTIME_CLASSES: Final = {Platform.EKS: "", Platform.AKS: "nvidia-container-runtime", Platform.OTHER: "nvidia"}
_ADVICE: Final = (
    "HAMi runs a copy of kube-scheduler; where this patch release was not published, set ADDONS__KUBE_SCHEDULER_TAG to "
    "one of the same minor release that was, then try again."
)


class SharesMissing(AddonFailed):
    """No node offers shares, though all was installed; the message says why."""


def addon(settings: AddonSettings) -> Addon:
    """The add-on."""
    return Addon(
        name=AddonName.HAMI,
        title="HAMi GPU sharing",
        release=RELEASE,
        namespace=NAMESPACE,
        chart="hami",
        version=settings.hami_version,
        repository="https://project-hami.github.io/HAMi/",
        values=partial(_values, settings),
        marks=("app.kubernetes.io/name=hami",),
        image_advice={"kube-scheduler": _ADVICE},
    )


def _values(settings: AddonSettings, about: Surroundings) -> Mapping[str, Any]:
    registry = settings.image_registry
    return {
        **({"global": {"imageRegistry": registry}} if registry else {}),
        "scheduler": {
            "kubeScheduler": {
                # Its default registry is in China; its copy of the scheduler must be of the server's very minor.
                "image": {
                    "registry": registry or "registry.k8s.io",
                    "repository": settings.kube_scheduler_image,
                    "tag": settings.kube_scheduler_tag or f"v{about.server.minor}.{about.server.patch}",
                }
            },
            "admissionWebhook": {"manageNamespaceSelector": about.platform is not Platform.AKS},
            # The default opens ports on every node.
            "service": {"type": "ClusterIP"},
        },
        "devicePlugin": {
            "service": {"type": "ClusterIP"},
            "runtimeClassName": _RUNTIME_CLASSES[about.platform],
            "nvidiaNodeSelector": {NODE_LABEL: NODE_VALUE},
            "tolerations": [{"operator": "Exists"}],
        },
    }


async def mark_nodes(door: Door) -> None:
    """Label the NVIDIA nodes for HAMi, and mark them; what others labelled stays. Raises PlaybookError, KubeError."""
    names = [str(node["metadata"]["name"]) for node in await nvidia_nodes(door.client)]
    await door.play("install_hami.yml", variables={"nodes": names, "state": "present"}, timeout_s=_PLAYBOOK_S)


async def unmark_nodes(door: Door) -> bool:
    """Take our labels and HAMi's annotations from the nodes that bear our mark; whether there were any.

    Raises PlaybookError, KubeError.
    """
    async for page in door.client.list_pages(NODES, label_selector=MARK, limit=1):
        if page["items"]:
            await door.play("install_hami.yml", variables={"nodes": [], "state": "absent"}, timeout_s=_PLAYBOOK_S)
            return True
        break
    return False


async def still_offering(client: ClusterClient) -> str | None:
    """Wait until no ready node offers nvidia.com/gpu; one that does all the same, after a while. Raises KubeError."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + _RELEASE_S
    while True:
        began = clock()
        nodes = [node for node in await nvidia_nodes(client) if is_ready(node)]
        offering = [str(node["metadata"]["name"]) for node in nodes if _offered(node)]
        if not offering:
            return None
        if clock() >= deadline:
            return offering[0]
        await asyncio.sleep(pause_after(clock() - began))


@dataclass(frozen=True, slots=True)
class Registration:
    """How far HAMi came on the nodes it was meant for."""

    done: tuple[str, ...]
    waiting: tuple[str, ...]
    left_out: tuple[str, ...]
    """Nodes that are not waited for, each with the reason."""


async def wait_until_registered(
    client: ClusterClient, *, timeout_s: float, on_progress: Callable[[int, int], None]
) -> Registration:
    """Wait until every NVIDIA node that is ready offers shares; those where it cannot be are left out, and named.

    Raises SharesMissing when there is none in the end that does, and KubeError.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout_s
    while True:
        began = clock()
        found = registration(await nvidia_nodes(client), await _plugins(client))
        on_progress(len(found.done), len(found.done) + len(found.waiting))
        if not found.waiting or clock() >= deadline:
            break
        await asyncio.sleep(pause_after(clock() - began))
    late = tuple(f"{name}: no GPU was registered within {timeout_s:.0f} s" for name in found.waiting)
    found = Registration(found.done, (), (*found.left_out, *late))
    if not found.done:
        raise SharesMissing(f"HAMi shares no GPU: {some(found.left_out)}.")
    return found


async def is_working(client: ClusterClient) -> bool:
    """Whether pods get shares now. Raises KubeError."""
    late = await rollout.late(client, release=RELEASE, namespace=NAMESPACE)
    return not late and bool(registration(await nvidia_nodes(client), await _plugins(client)).done)


def registration(nodes: Iterable[Mapping[str, Any]], plugins: Iterable[Mapping[str, Any]]) -> Registration:
    """How far HAMi came. `plugins` are the present pods of its device plugin."""
    by_node = {str((pod.get("spec") or {}).get("nodeName")): pod for pod in plugins}
    done, waiting, left_out = [], [], []
    for node in nodes:
        name, labels = str(node["metadata"]["name"]), node["metadata"].get("labels") or {}
        if not has_nvidia(node):
            continue
        plugin = by_node.get(name)
        failed = rollout.broken([plugin]) if plugin else ()
        if labels.get(NODE_LABEL) != NODE_VALUE:
            left_out.append(f"{name}: it has the label {NODE_LABEL}={labels.get(NODE_LABEL, '')} of somebody else")
        elif not is_ready(node):
            left_out.append(f"{name}: it is not ready")
        elif failed:
            left_out.append(f"{name}: {failed[0]}")
        elif REGISTER in (node["metadata"].get("annotations") or {}) and _offered(node):
            done.append(name)
        else:
            waiting.append(name)
    return Registration(tuple(done), tuple(waiting), tuple(left_out))


def some(sentences: Sequence[str]) -> str:
    """The first few of many, for a sentence."""
    more = len(sentences) - _NAMED
    return "; ".join(sentences[:_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _offered(node: Mapping[str, Any]) -> bool:
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return str(allocatable.get(RESOURCE, "0")) != "0"


async def _plugins(client: ClusterClient) -> list[Mapping[str, Any]]:
    daemon_sets = await rollout.listed(client, DAEMON_SETS, namespace=NAMESPACE, label_selector=_PLUGINS)
    pods = await rollout.listed(client, PODS, namespace=NAMESPACE, label_selector=_PLUGINS)
    return present_pods(daemon_sets, (), pods)
