"""DaemonSets: one pod on every node that the template selects and tolerates."""

from __future__ import annotations

import json
from typing import Any

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation.controllers.reconciler import Reconciler
from sandbox.kubernetes.simulation.selectors import node_selected, pinned_node, untolerated
from sandbox.kubernetes.simulation.view import is_finished, is_ready
from sandbox.kubernetes.simulation.world import World, short_hash

Obj = dict[str, Any]

_HASH = "controller-revision-hash"
_ALWAYS = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)


class DaemonSetController(Reconciler):
    """Pins each pod to its node by a field selector, as the real one does, and replaces pods of an old template."""

    kind, child, source = "DaemonSet", "Pod", "daemonset-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._stop_nodes = world.store.subscribe(self._on_node, kinds=("Node",))

    def stop(self) -> None:
        """Listen no longer."""
        super().stop()
        self._stop_nodes()

    def _on_node(self, event: Event) -> None:
        if event.old is not None and event.type == "MODIFIED":
            former, node = event.old, event.obj
            if (former["metadata"].get("labels"), former["spec"]) == (node["metadata"].get("labels"), node["spec"]):
                return
        self.world.driver.soon("daemonsets", self._wake_all)

    def _wake_all(self) -> None:
        for one in self.world.store.list(self.kind):
            self.wake((self.kind, one["metadata"]["namespace"], one["metadata"]["name"]))

    def reconcile(self, obj: Obj) -> None:
        """See the class."""
        spec = _pod_spec(obj["spec"]["template"]["spec"])
        digest = short_hash(json.dumps(obj["spec"]["template"], sort_keys=True))
        eligible = {
            name for name, node in self.world.view.nodes.items()
            if node_selected(spec, name, node["metadata"].get("labels") or {})
            and not untolerated(node["spec"].get("taints") or [], spec)
        }  # fmt: skip
        by_node: dict[str, Obj] = {}
        for pod in self.children(obj):
            node = pod["spec"].get("nodeName") or pinned_node(pod["spec"]) or ""
            if node not in eligible or node in by_node or is_finished(pod):
                self.remove_pod(obj, pod)
            else:
                by_node[node] = pod
        dying = self._dying_nodes(obj)
        for node in sorted(eligible - set(by_node) - dying):
            if self._create(obj, node, spec, digest) is not None:
                break
        self._replace_outdated(obj, by_node, digest, len(eligible))
        self._report(obj, by_node, digest, eligible)

    def _dying_nodes(self, obj: Obj) -> set[str]:
        return {
            pod["spec"].get("nodeName", "")
            for pod in self.world.view.owned(obj["metadata"]["uid"], "Pod")
            if pod["metadata"].get("deletionTimestamp")
        }

    def _create(self, obj: Obj, node: str, spec: Obj, digest: str) -> str | None:
        meta = obj["metadata"]
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        hard = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        pinned = {**spec, "affinity": {**(spec.get("affinity") or {}), "nodeAffinity": hard}}
        seed = f"{node}/{meta['resourceVersion']}/{meta['uid']}"
        name = f"{meta['name']}-{short_hash(seed, length=5)}"
        while self.world.store.find("Pod", meta["namespace"], name) is not None:
            name = f"{meta['name']}-{short_hash(name, length=5)}"
        template = {**obj["spec"]["template"], "spec": pinned}
        return self.make_pod(obj, name, template, labels={_HASH: digest})

    def _replace_outdated(self, obj: Obj, by_node: dict[str, Obj], digest: str, desired: int) -> None:
        strategy = obj["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return
        text = str((strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1))
        allowed = max(int(text[:-1]) * desired // 100, 1) if text.endswith("%") else max(int(text), 1)
        old = [pod for pod in by_node.values() if pod["metadata"]["labels"].get(_HASH) != digest]
        down = desired - sum(is_ready(pod) for pod in by_node.values())
        unready = [pod for pod in old if not is_ready(pod)]
        ready = [pod for pod in old if is_ready(pod)]
        for pod in [*unready, *ready[: max(allowed - down, 0)]]:
            self.remove_pod(obj, pod)

    def _report(self, obj: Obj, by_node: dict[str, Obj], digest: str, eligible: set[str]) -> None:
        ready = sum(is_ready(pod) for pod in by_node.values())
        updated = sum(pod["metadata"]["labels"].get(_HASH) == digest for pod in by_node.values())
        self.write_status(obj, {
            "currentNumberScheduled": len(by_node),
            "desiredNumberScheduled": len(eligible),
            "numberAvailable": ready,
            "numberMisscheduled": 0,
            "numberReady": ready,
            "numberUnavailable": len(eligible) - ready,
            "observedGeneration": obj["metadata"].get("generation", 1),
            "updatedNumberScheduled": updated,
        })  # fmt: skip


def _pod_spec(spec: Obj) -> Obj:
    own = [{"key": key, "operator": "Exists", "effect": effect} for key, effect in _ALWAYS]
    return {**spec, "tolerations": [*(spec.get("tolerations") or []), *own]}
