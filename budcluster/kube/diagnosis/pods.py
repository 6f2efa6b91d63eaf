"""What a pod's own status says of it: pushed out, turned away by its node, or lost with it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from budcluster.kube.diagnosis.finding import Finding, Weight
from budcluster.kube.times import moment

_LONGEST: Final = 500
_STUCK_AFTER: Final = timedelta(seconds=60)
"""Beyond the grace period, which a deletion's time includes."""


def explain_status(status: Mapping[str, Any]) -> Finding | None:
    """The cause that the kubelet or the node's controller wrote down; None for most pods."""
    reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    if reason == "Evicted":
        return Finding(
            "evicted", f"The node pushed the pod out: {message}"[:_LONGEST],
            "Free disk or memory on the node, or use another one.", Weight.CAUSE,
        )  # fmt: skip
    if reason == "UnexpectedAdmissionError":
        return Finding(
            "gpu-lost", "The node could not give the pod the GPU that the scheduler promised.",
            "A GPU or its device plugin was lost there; the pod is made again elsewhere.", Weight.CAUSE,
            lines=(message,),
        )  # fmt: skip
    if reason.startswith("OutOf") or reason == "NodeAffinity":
        return Finding(
            "node-turned-away", f"The node turned the pod away after it was placed there ({reason}).",
            "The pod is made again; if this repeats, look at what else takes the node's resources or labels.",
            Weight.CAUSE, lines=(message,),
        )  # fmt: skip
    return lost_with_node(message) if reason == "NodeLost" else None


def explain_deletion(pod: Mapping[str, Any], at: datetime | None) -> Finding | None:
    """Why a pod that is being deleted is still there; None while that takes no longer than it may."""
    if found := explain_status(pod.get("status") or {}):
        return found if found.type == "node-lost" else None
    due = moment((pod.get("metadata") or {}).get("deletionTimestamp"))
    if at is None or due is None or at < due + _STUCK_AFTER:
        return None
    return Finding(
        "stuck-terminating", "The pod was deleted, and its node does not confirm that it is gone.",
        "Look at the node: a lost one is taken out of the cluster with `kubectl delete node`.", Weight.LIKELY,
    )  # fmt: skip


def lost_with_node(message: str) -> Finding:
    """The node of the pod does not answer."""
    return Finding(
        "node-lost", "The pod's node does not answer any more.",
        "Look at the node's health; its pods are made again elsewhere after about five minutes, where there is room.",
        Weight.CAUSE, lines=(message,),
    )  # fmt: skip
