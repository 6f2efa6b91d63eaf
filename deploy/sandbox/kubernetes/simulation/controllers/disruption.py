"""PodDisruptionBudgets: how many pods may go at once."""

from __future__ import annotations

import math
from typing import Any

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation.selectors import matches
from sandbox.kubernetes.simulation.view import is_finished, is_ready
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]


class DisruptionController:
    """Keeps the status of every budget."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = world.store.subscribe(self._on_event, kinds=("PodDisruptionBudget", "Pod"))

    def stop(self) -> None:
        """Listen no longer."""
        self._stop()

    def _on_event(self, event: Event) -> None:
        namespace = event.obj["metadata"]["namespace"]
        if self._world.store.list("PodDisruptionBudget", namespace):
            self._world.driver.soon(("budgets", namespace), lambda: self._reconcile(namespace))

    def _reconcile(self, namespace: str) -> None:
        for budget in self._world.store.list("PodDisruptionBudget", namespace):
            pods = [
                pod for pod in self._world.store.list("Pod", namespace)
                if matches(budget["spec"].get("selector"), pod["metadata"].get("labels") or {})
                and not is_finished(pod)
            ]  # fmt: skip
            healthy, needed = sum(is_ready(pod) for pod in pods), _needed(budget["spec"], len(pods))
            status = {
                "currentHealthy": healthy,
                "desiredHealthy": needed,
                "disruptionsAllowed": max(healthy - needed, 0),
                "expectedPods": len(pods),
                "observedGeneration": budget["metadata"].get("generation", 1),
            }
            self._world.change(budget, lambda one, status=status: one.update(status=status), subresource="status")  # type: ignore[misc] # default binds the loop variable


def _needed(spec: Obj, pods: int) -> int:
    if "maxUnavailable" in spec:
        return max(pods - _count(spec["maxUnavailable"], pods), 0)
    return _count(spec.get("minAvailable", 1), pods)


def _count(value: Any, pods: int) -> int:
    text = str(value)
    return math.ceil(int(text[:-1]) * pods / 100) if text.endswith("%") else int(text)
