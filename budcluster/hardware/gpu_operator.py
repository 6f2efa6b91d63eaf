"""NVIDIA's GPU operator 26.7: drivers, container toolkit, device plugin, feature discovery and DCGM on GPU nodes."""

import asyncio
import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from budcluster.config import AddonSettings
from budcluster.hardware.addons import Addon, AddonFailed, Platform, Surroundings
from budcluster.hardware.models import AddonName
from budcluster.hardware.reading.profile import Sharing
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import NotFound
from budcluster.kube.resources import Resource

CLUSTER_POLICIES: Final = Resource("nvidia.com", "v1", "clusterpolicies")
POLICY: Final = "cluster-policy"
SLICES: Final = "budcluster-time-slicing"
_POLL_S: Final = 2.0
_BLIND_S: Final = 45.0
"""How long the operator may see no GPU node: labels are there before it comes, so it sees one at once or never."""
_OPERANDS: Final[Mapping[str, str]] = {
    "validator": "nvidia",
    "operator": "nvidia",
    "driver": "nvidia",
    "toolkit": "nvidia/k8s",
    "devicePlugin": "nvidia",
    "dcgm": "nvidia/cloud-native",
    "dcgmExporter": "nvidia/k8s",
    "gfd": "nvidia",
    "migManager": "nvidia/cloud-native",
}
"""Sections of the chart's values that name an image, with its folder in nvcr.io."""
_GPU_TAINTS: Final = (
    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "sku", "operator": "Exists", "effect": "NoSchedule"},
)


def addon(settings: AddonSettings) -> Addon:
    """The add-on."""
    return Addon(
        name=AddonName.GPU_OPERATOR,
        title="NVIDIA GPU operator",
        release="gpu-operator",
        namespace="gpu-operator",
        chart="gpu-operator",
        version=settings.gpu_operator_version,
        repository="https://helm.ngc.nvidia.com/nvidia",
        values=partial(_values, settings.image_registry),
        marks=("app=gpu-operator", "app.kubernetes.io/name=gpu-operator"),
        privileged=True,
    )


def _values(registry: str | None, about: Surroundings) -> Mapping[str, Any]:
    values: dict[str, Any] = {
        # Two discoveries in one cluster disturb each other.
        "nfd": {"enabled": False},
        "daemonsets": {"tolerations": list(_GPU_TAINTS)},
        "devicePlugin": {"enabled": about.plugin},
    }
    if about.plugin and about.sharing is Sharing.TIME_SLICING:
        values["devicePlugin"]["config"] = _slicing(about.replicas_per_gpu)
    match about.platform:
        case Platform.EKS:
            # The accelerated Amazon Linux image brings driver and toolkit.
            values |= {"driver": {"enabled": False}, "toolkit": {"enabled": False}}
        case Platform.AKS:
            values |= {
                "driver": {"enabled": False},
                "toolkit": {"enabled": False},
                "operator": {"runtimeClass": "nvidia-container-runtime", "tolerations": list(_GPU_TAINTS)},
            }
        case Platform.OTHER:
            pass
    for section, folder in _OPERANDS.items() if registry else ():
        values.setdefault(section, {})["repository"] = f"{registry}/{folder}"
    return values


def _slicing(replicas: int) -> dict[str, Any]:
    slices = (
        "version: v1\nflags: {migStrategy: none}\nsharing:\n  timeSlicing:\n    renameByDefault: false\n"
        "    failRequestsGreaterThanOne: true\n"
        f"    resources: [{{name: nvidia.com/gpu, replicas: {replicas}}}]\n"
    )
    # The operator does not watch the ConfigMap's content: another content must have another name to be seen.
    name = f"{SLICES}-{hashlib.sha256(slices.encode()).hexdigest()[:8]}"
    return {"create": True, "name": name, "default": "any", "data": {"any": slices}}


class OperatorNotReady(AddonFailed):
    """The operator's parts did not come up in time; the message says which."""


async def serves_gpus(client: ClusterClient) -> bool:
    """Whether the operator in this cluster, anybody's, has its device plugin switched on. Raises KubeError."""
    try:
        policies = [policy async for page in client.list_pages(CLUSTER_POLICIES) for policy in page["items"]]
    except NotFound:
        return False  # it knows no such thing: an operator that hands out GPUs by DRA alone
    plugins = [(policy.get("spec") or {}).get("devicePlugin") or {} for policy in policies]
    return any(plugin.get("enabled", True) for plugin in plugins)


async def wait_until_ready(client: ClusterClient, *, timeout_s: float) -> str:
    """Wait until the operator has reconciled the nodes; a sentence about it.

    `state: ready` alone means nothing: it is also said of a cluster where no GPU was found. Raises OperatorNotReady.
    """
    began = asyncio.get_running_loop().time()
    while True:
        reason, message = await _state(client)
        if reason == "Reconciled":
            return "every GPU node has its driver, toolkit and exporters"
        patience_s = timeout_s
        said = message or "it has not said anything yet"
        if reason in {"NoGPUNodes", "NFDLabelsMissing"}:
            patience_s = min(timeout_s, _BLIND_S)
            said = "it sees no GPU node, for want of the labels pci-10de or pci-0302_10de of Node Feature Discovery"
        if asyncio.get_running_loop().time() - began >= patience_s:
            raise OperatorNotReady(f"The GPU operator is not ready after {patience_s:.0f} s: {said}.")
        await asyncio.sleep(_POLL_S)


async def _state(client: ClusterClient) -> tuple[str, str]:
    try:
        policy = await client.get(CLUSTER_POLICIES, POLICY)
    except NotFound:
        return "", "its ClusterPolicy does not exist"
    conditions = {c.get("type"): c for c in (policy.get("status") or {}).get("conditions") or ()}
    ready, error = conditions.get("Ready", {}), conditions.get("Error", {})
    if ready.get("status") == "True":
        return str(ready.get("reason", "")), str(ready.get("message", ""))
    return str(error.get("reason", "")), str(error.get("message") or ready.get("message") or "")
