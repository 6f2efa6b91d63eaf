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
    reasons += [f"has the taint {taint}" for taint in closing_taints(node) if _is_general(taint.rpartition(":")[0])]
    return tuple(reasons)


def closing_taints(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Taints that keep out every pod that does not tolerate them, as `key:effect`."""
    taints = (
        (str(taint.get("key", ""))[:80], taint.get("effect")) for taint in (node.get("spec") or {}).get("taints") or ()
    )
    return tuple(f"{key}:{effect}" for key, effect in taints if effect in {"NoSchedule", "NoExecute"})


def _is_general(key: str) -> bool:
    return key not in _DEVICE_TAINTS and not _is_echo(key)


def _is_echo(key: str) -> bool:
    """Taints by which Kubernetes repeats what a condition or the cordon says already."""
    return key.startswith("node.kubernetes.io/")


def _conditions(node: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return {str(condition.get("type")): condition for condition in conditions}
