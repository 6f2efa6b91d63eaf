"""Node lifecycle: a kubelet that falls silent, the taints that follow, eviction, and the way back."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation.kubelet import KubeletFleet
from sandbox.kubernetes.simulation.nodes import conditions
from sandbox.kubernetes.simulation.placement import UNSCHEDULABLE
from sandbox.kubernetes.simulation.selectors import tolerates
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]

_SOURCE = "node-controller"
_KEY = "node.kubernetes.io/unreachable"
_DEFAULT_TOLERATION_S = 300.0


class NodeController:
    """Marks silent nodes after the grace period and evicts their pods; keeps the cordon taint."""

    def __init__(self, world: World, kubelets: KubeletFleet) -> None:
        self._world = world
        self._kubelets = kubelets
        self._stop = world.store.subscribe(self._on_node, kinds=("Node",))

    def stop(self) -> None:
        """Listen no longer."""
        self._stop()

    def silence(self, node: str) -> None:
        """The kubelet stops posting status. Raises KeyError for an unknown node."""
        self._world.machines[node].down = True
        self._world.after(self._world.settings.unreachable_grace_s, lambda: self._lost(node))

    def restore(self, node: str) -> None:
        """The kubelet is back: taints go, pods are reported again."""
        self._world.machines[node].down = False
        found = self._world.store.find("Node", None, node)
        if found is None:
            return
        now = self._world.now()
        self._world.change(found, lambda one: one["status"].update(conditions=conditions(now)), subresource="status")
        self._world.change(found, _without_taint)
        self._world.events.normal(found, "NodeReady", f"Node {node} status is now: NodeReady", source="kubelet")
        self._kubelets.resume(node)

    def _lost(self, node: str) -> None:
        found = self._world.store.find("Node", None, node)
        if found is None or not self._world.machines[node].down:
            return
        now = self._world.now()
        gone = conditions(now, ready=False)
        self._world.change(found, lambda one: one["status"].update(conditions=gone), subresource="status")

        def taint(current: Obj) -> None:
            rows = [{"key": _KEY, "effect": effect, "timeAdded": now} for effect in ("NoSchedule", "NoExecute")]
            current["spec"]["taints"] = [*(current["spec"].get("taints") or []), *rows]

        self._world.change(found, taint)
        self._world.events.normal(found, "NodeNotReady", f"Node {node} status is now: NodeNotReady", source=_SOURCE)
        for pod in self._world.view.pods_on(node):
            self._world.change(pod, lambda one: _unready(one, now), subresource="status")
            self._world.events.warning(pod, "NodeNotReady", "Node is not ready", source=_SOURCE)
            self._plan_eviction(pod, node)

    def _plan_eviction(self, pod: Obj, node: str) -> None:
        taint = {"key": _KEY, "effect": "NoExecute"}
        seconds: float | None = _DEFAULT_TOLERATION_S
        for toleration in pod["spec"].get("tolerations") or []:
            if tolerates([toleration], taint):
                limit = toleration.get("tolerationSeconds")
                seconds = None if limit is None else float(limit)
        if seconds is not None:
            self._world.after(seconds, lambda: self._evict(pod, node))

    def _evict(self, pod: Obj, node: str) -> None:
        meta = pod["metadata"]
        found = self._world.store.find("Pod", meta["namespace"], meta["name"])
        if self._world.machines[node].down and found is not None and found["metadata"]["uid"] == meta["uid"]:
            text = f"Marking for deletion Pod {meta['namespace']}/{meta['name']}"
            self._world.events.normal(found, "TaintManagerEviction", text, source="taint-eviction-controller")
            self._world.store.delete("Pod", meta["namespace"], meta["name"])

    def _sync_cordon(self, node: Obj) -> None:
        self._world.change(node, _cordon)

    def _on_node(self, event: Event) -> None:
        if event.type == "DELETED":
            return
        spec = event.obj["spec"]
        tainted = any(taint["key"] == UNSCHEDULABLE["key"] for taint in spec.get("taints") or [])
        if tainted != bool(spec.get("unschedulable")):
            node = event.obj
            name = node["metadata"]["name"]
            self._world.driver.soon(("cordon", name), lambda: self._sync_cordon(node))


def _cordon(node: Obj) -> None:
    others = [taint for taint in node["spec"].get("taints") or [] if taint["key"] != UNSCHEDULABLE["key"]]
    if node["spec"].get("unschedulable"):
        others.append(dict(UNSCHEDULABLE))
    if others:
        node["spec"]["taints"] = others
    else:
        node["spec"].pop("taints", None)


def _without_taint(node: Obj) -> None:
    kept = [taint for taint in node["spec"].get("taints") or [] if taint["key"] != _KEY]
    if kept:
        node["spec"]["taints"] = kept
    else:
        node["spec"].pop("taints", None)


def _unready(pod: Obj, now: str) -> None:
    for row in (pod.get("status") or {}).get("conditions") or []:
        if row["type"] in ("Ready", "ContainersReady") and row["status"] == "True":
            row.update(status="False", reason="NodeNotReady", lastTransitionTime=now)
