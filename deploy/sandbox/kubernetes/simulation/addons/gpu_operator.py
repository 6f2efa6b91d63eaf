"""The GPU operator v26.7: turns a ClusterPolicy into operands on nodes that NFD marked, and reports how far it is."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation.addons.agents import Agent, label_node
from sandbox.kubernetes.simulation.addons.features import FEATURE_PREFIX
from sandbox.kubernetes.simulation.addons.operands import OPERANDS, POLICY, Operand, daemonset, find_policy, is_enabled
from sandbox.kubernetes.simulation.world import World, owner_reference

Obj = dict[str, Any]

_MARKS = tuple(f"{FEATURE_PREFIX}pci-{name}.present" for name in ("10de", "0302_10de", "0300_10de"))
_GATE = "nvidia.com/gpu.deploy."
_RECHECK_S = 1.0


class GpuOperator(Agent):
    """Reconciles while its own pod is ready; without it operands run on, unattended."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._namespace = "gpu-operator"
        self._stop_rest = world.store.subscribe(self._on_change, kinds=(POLICY, "Node", "DaemonSet"))

    def stop(self) -> None:
        """Listen no longer."""
        super().stop()
        self._stop_rest()

    def is_mine(self, pod: Obj) -> bool:
        """The operator's own pod."""
        return (pod["metadata"].get("labels") or {}).get("app") == "gpu-operator"

    def ready(self, pod: Obj) -> None:
        """Start reconciling."""
        self._namespace = pod["metadata"]["namespace"]
        self._plan()

    def _on_change(self, event: Event) -> None:
        node = event.obj["kind"] == "Node" and event.old is not None and event.type == "MODIFIED"
        if (
            node
            and event.old is not None
            and event.old["metadata"].get("labels") == event.obj["metadata"].get("labels")
        ):
            return
        self._plan()

    def _plan(self) -> None:
        if self.is_up:
            self.world.driver.coalesce("gpu-operator", _RECHECK_S, self._reconcile)

    def _reconcile(self) -> None:
        policy = find_policy(self.world)
        if policy is None or not self.is_up or policy["metadata"].get("deletionTimestamp"):
            return
        nodes = self.world.view.nodes
        labels = {name: node["metadata"].get("labels") or {} for name, node in nodes.items()}
        gpu_nodes = [name for name in nodes if any(labels[name].get(mark) == "true" for mark in _MARKS)]
        for name in gpu_nodes:
            self._mark(name, labels[name])
        if not any(key.startswith(FEATURE_PREFIX) for found in labels.values() for key in found):
            self._report(policy, "ready", "NFDLabelsMissing", "No NFD labels found")
            return
        if not gpu_nodes:
            self._report(policy, "ready", "NoGPUNodes", "No GPU node found")
            return
        self._ensure_runtime_class(policy)
        waiting = [operand.state for operand in OPERANDS if not self._ensure(policy, operand)]
        if waiting:
            text = f"ClusterPolicy is not ready; states not ready: [{' '.join(waiting)}]"
            self._report(policy, "notReady", "OperandNotReady", text)
        else:
            self._report(policy, "ready", "Reconciled", "All resources have been successfully reconciled")

    def _mark(self, node: str, present: dict[str, str]) -> None:
        if present.get(f"{_GATE}operands") == "false":
            label_node(self.world, node, {f"{_GATE}{operand.gate}": None for operand in OPERANDS})
            return
        wanted: dict[str, str | None] = {"nvidia.com/gpu.present": "true"}
        for operand in OPERANDS:
            key = f"{_GATE}{operand.gate}"
            if present.get(key) == "false":
                continue
            baked_in = operand.section == "driver" and self.world.machines[node].profile.driver is not None
            wanted[key] = "pre-installed" if baked_in else "true"
        label_node(self.world, node, wanted)

    def _ensure_runtime_class(self, policy: Obj) -> None:
        name = (policy["spec"].get("operator") or {}).get("runtimeClass") or "nvidia"
        if self.world.store.find("RuntimeClass", None, name) is None:
            self.world.store.create({
                "apiVersion": "node.k8s.io/v1",
                "kind": "RuntimeClass",
                "metadata": {
                    "name": name,
                    "labels": {"app.kubernetes.io/component": "gpu-operator"},
                    "ownerReferences": [owner_reference(policy)],
                },
                "handler": name,
            })  # fmt: skip

    def _ensure(self, policy: Obj, operand: Operand) -> bool:
        """Make, change or remove one DaemonSet; true when nothing about it is left to wait for."""
        store, place = self.world.store, ("DaemonSet", self._namespace, operand.daemonset)
        found = store.find(*place)
        if not is_enabled(policy, operand):
            if found is not None:
                store.delete(*place)
            return True
        wanted = daemonset(policy, operand, self._namespace)
        if found is None:
            store.create(wanted)
            if operand.port:
                self._ensure_service(policy, operand)
            return False
        store.update(*place, lambda current: current["spec"].update(template=wanted["spec"]["template"]))
        status = store.get(*place).get("status") or {}
        desired = status.get("desiredNumberScheduled", 0)
        return bool(
            status.get("observedGeneration") == store.get(*place)["metadata"].get("generation")
            and status.get("numberReady", 0) == desired == status.get("updatedNumberScheduled", 0)
        )

    def _ensure_service(self, policy: Obj, operand: Operand) -> None:
        place = ("Service", self._namespace, operand.daemonset)
        if self.world.store.find(*place) is None:
            self.world.store.create({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {
                    "name": operand.daemonset, "namespace": self._namespace, "labels": {"app": operand.daemonset},
                    "ownerReferences": [owner_reference(policy)],
                },
                "spec": {
                    "selector": {"app": operand.daemonset},
                    "ports": [{"name": "gpu-metrics", "port": operand.port, "targetPort": operand.port}],
                },
            })  # fmt: skip

    def _report(self, policy: Obj, state: str, reason: str, message: str) -> None:
        good, now = state == "ready", self.world.now()
        rows = [
            {"type": "Ready", "status": "True" if good else "False", "reason": reason, "message": message},
            {"type": "Error", "status": "False" if good else "True", "reason": "Ready" if good else reason,
             "message": "" if good else message},
        ]  # fmt: skip
        former = {row["type"]: row for row in (policy.get("status") or {}).get("conditions") or []}
        for row in rows:
            seen = former.get(row["type"])
            row["lastTransitionTime"] = seen["lastTransitionTime"] if seen and seen["status"] == row["status"] else now
        status = {"state": state, "namespace": self._namespace, "conditions": rows}
        self.world.change(policy, lambda current: current.update(status=status), subresource="status")
