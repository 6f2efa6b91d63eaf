"""ReplicaSets: as many pods as asked for."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.simulation.controllers.reconciler import Reconciler
from sandbox.kubernetes.simulation.view import is_finished, is_ready
from sandbox.kubernetes.simulation.world import World, short_hash

Obj = dict[str, Any]


class ReplicaSetController(Reconciler):
    """Creates and deletes pods; unready, unscheduled and young ones go first."""

    kind, child, source = "ReplicaSet", "Pod", "replicaset-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._made = 0

    def reconcile(self, obj: Obj) -> None:
        """See the class."""
        pods = [pod for pod in self.children(obj) if not is_finished(pod)]
        wanted = int(obj["spec"].get("replicas", 1))
        refusal: str | None = None
        for _ in range(wanted - len(pods)):
            refusal = self._create(obj)
            if refusal is not None:
                break
        if len(pods) > wanted:
            youngest_first = list(reversed(pods))
            for pod in sorted(youngest_first, key=_worth)[: len(pods) - wanted]:
                self.remove_pod(obj, pod)
        pods = [pod for pod in self.children(obj) if not is_finished(pod)]
        ready = sum(is_ready(pod) for pod in pods)
        conditions = []
        if refusal is not None:
            conditions = [{
                "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": refusal,
                "lastTransitionTime": obj["metadata"].get("creationTimestamp"),
            }]  # fmt: skip
        self.write_status(obj, {
            "replicas": len(pods), "fullyLabeledReplicas": len(pods), "readyReplicas": ready,
            "availableReplicas": ready, "observedGeneration": obj["metadata"].get("generation", 1),
            "conditions": conditions,
        })  # fmt: skip

    def _create(self, obj: Obj) -> str | None:
        meta = obj["metadata"]
        name = self._name(meta)
        while self.world.store.find("Pod", meta["namespace"], name) is not None:
            self._made += 1
            name = self._name(meta)
        # Refused, it keeps its name: another one in the status would be a change that calls for another try at once.
        return self.make_pod(obj, name, obj["spec"]["template"])

    def _name(self, meta: Obj) -> str:
        return f"{meta['name']}-{short_hash(meta['uid'] + str(self._made), length=5)}"


def _worth(pod: Obj) -> tuple[bool, bool]:
    """Sort key: what is worth least comes first."""
    return bool(pod["spec"].get("nodeName")), is_ready(pod)
