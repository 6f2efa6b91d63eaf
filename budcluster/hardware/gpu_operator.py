"""NVIDIA's GPU operator 26.7: drivers, container toolkit, device plugin, feature discovery and DCGM on GPU nodes."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from budcluster.config import AddonSettings
from budcluster.hardware.addons import Addon, Platform, Surroundings
from budcluster.hardware.models import AddonName
from budcluster.hardware.profile import Sharing
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import NotFound
from budcluster.kube.resources import Resource

CLUSTER_POLICIES: Final = Resource("nvidia.com", "v1", "clusterpolicies")
POLICY: Final = "cluster-policy"
SLICES: Final = "budcluster-time-slicing"
_POLL_S: Final = 2.0
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
        values=_values,
        marks=("app=gpu-operator", "app.kubernetes.io/name=gpu-operator"),
        privileged=True,
    )


def _values(about: Surroundings) -> Mapping[str, Any]:
    values: dict[str, Any] = {
        # Two discoveries in one cluster disturb each other.
        "nfd": {"enabled": False},
        "daemonsets": {"tolerations": list(_GPU_TAINTS)},
        # HAMi's own plugin offers the same resource.
        "devicePlugin": {"enabled": about.sharing is not Sharing.HAMI},
    }
    if about.sharing is Sharing.TIME_SLICING:
        values["devicePlugin"]["config"] = {
            "create": True,
            "name": SLICES,
            "default": "any",
            "data": {"any": _slices(about.replicas_per_gpu)},
        }
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
    return values


def _slices(replicas: int) -> str:
    return (
        "version: v1\nflags: {migStrategy: none}\nsharing:\n  timeSlicing:\n    renameByDefault: false\n"
        "    failRequestsGreaterThanOne: true\n"
        f"    resources: [{{name: nvidia.com/gpu, replicas: {replicas}}}]\n"
    )


class OperatorNotReady(Exception):
    """The operator's parts did not come up in time; the message says which."""


async def wait_until_ready(client: ClusterClient, *, timeout_s: float) -> str:
    """Wait until the operator has reconciled the nodes; a sentence about it.

    `state: ready` alone means nothing: it is also said of a cluster where no GPU was found. Raises OperatorNotReady.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        reason, message = await _state(client)
        if reason == "Reconciled":
            return "every GPU node has its driver, toolkit and exporters"
        if reason in {"NoGPUNodes", "NFDLabelsMissing"}:
            said = "it sees no GPU node"
        else:
            said = message or "it has not said anything yet"
        if asyncio.get_running_loop().time() >= deadline:
            raise OperatorNotReady(f"The GPU operator is not ready after {timeout_s:.0f} s: {said}.")
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
