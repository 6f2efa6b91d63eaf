"""Whether a node can take work, and why not."""

from collections.abc import Mapping
from typing import Any, Final

# Taints that a pod that asks for the device tolerates: they keep others out, not the work meant for the node.
_DEVICE_TAINTS: Final = {"nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi", "gpu.intel.com/i915", "sku"}
_PRESSURES: Final = {
    "MemoryPressure": "is short of memory",
    "DiskPressure": "is short of disk",
    "PIDPressure": "is short of process ids",
    "NetworkUnavailable": "has no network",
}


def is_ready(node: Mapping[str, Any]) -> bool:
    """The kubelet says so itself, just now."""
    return _conditions(node).get("Ready", {}).get("status") == "True"


def is_pressed(node: Mapping[str, Any]) -> bool:
    """Short of memory, disk or process ids, or without network."""
    conditions = _conditions(node)
    return any(conditions.get(kind, {}).get("status") == "True" for kind in _PRESSURES)


def why_not(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Reasons why no new pod could be placed here, as sentences' ends ("is cordoned"); empty on a usable node."""
    reasons = []
    conditions = _conditions(node)
    ready = conditions.get("Ready", {})
    if ready.get("status") != "True":
        reason = ready.get("reason") or "its kubelet has not reported"
        reasons.append(f"is not ready ({str(reason)[:80]})")
    reasons += [sentence for kind, sentence in _PRESSURES.items() if conditions.get(kind, {}).get("status") == "True"]
    spec = node.get("spec") or {}
    if spec.get("unschedulable"):
        reasons.append("is cordoned")
    for taint in spec.get("taints") or ():
        key, effect = str(taint.get("key", "")), taint.get("effect")
        if effect in {"NoSchedule", "NoExecute"} and key not in _DEVICE_TAINTS and not _is_echo(key):
            reasons.append(f"has the taint {key[:80]}:{effect}")
    return tuple(reasons)


def _is_echo(key: str) -> bool:
    """Taints by which Kubernetes repeats what a condition or the cordon says already."""
    return key.startswith("node.kubernetes.io/")


def _conditions(node: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return {str(condition.get("type")): condition for condition in conditions}
