"""PodDisruptionBudgets, as an eviction meets them (registry/core/pod/storage/eviction.go of 1.36)."""

import math
from typing import Any

from sandbox.kubernetes.errors import InternalError, TooManyRequests
from sandbox.kubernetes.selectors import LabelSelector
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]


def check_budgets(store: Store, pod: Obj) -> None:
    """Raises TooManyRequests when the eviction would break a budget, InternalError when two budgets cover the pod."""
    if (
        pod.get("status", {}).get("phase") in {"Succeeded", "Failed", "Pending"}
        or "deletionTimestamp" in pod["metadata"]
    ):
        return
    namespace = pod["metadata"]["namespace"]
    budgets = [
        budget
        for budget in store.list("PodDisruptionBudget", namespace)
        if LabelSelector.from_object(budget["spec"].get("selector")).matches(pod["metadata"].get("labels"))
    ]
    if len(budgets) > 1:
        raise InternalError(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    for budget in budgets:
        healthy, needed = _health(store, budget)
        if (healthy > needed) or (not _is_ready(pod) and healthy >= needed):
            continue
        name = budget["metadata"]["name"]
        message = f"The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
        raise TooManyRequests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            details={"causes": [{"reason": "DisruptionBudget", "message": message}]},
        )


def _health(store: Store, budget: Obj) -> tuple[int, int]:
    """Pods that are ready, and how many must stay so."""
    spec = budget["spec"]
    selector = LabelSelector.from_object(spec.get("selector"))
    pods = store.list("Pod", budget["metadata"]["namespace"], labels=selector)
    healthy = sum(1 for pod in pods if _is_ready(pod) and "deletionTimestamp" not in pod["metadata"])
    expected = len(pods)
    if spec.get("minAvailable") is not None:
        return healthy, _count(spec["minAvailable"], expected)
    return healthy, expected - _count(spec.get("maxUnavailable", 1), expected)


def _count(value: int | str, of: int) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return math.ceil(of * int(value[:-1]) / 100)
    return int(value)


def _is_ready(pod: Obj) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
