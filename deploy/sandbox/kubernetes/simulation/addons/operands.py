"""The DaemonSets that the GPU operator v26.7 makes, and what their pods do to machines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from sandbox.kubernetes.simulation.addons import gpu_labels
from sandbox.kubernetes.simulation.addons.agents import Agent, offer
from sandbox.kubernetes.simulation.addons.gpu_labels import Sharing
from sandbox.kubernetes.simulation.addons.nfd import NfdWorkers
from sandbox.kubernetes.simulation.programs import Gate, Launch, Line, Program
from sandbox.kubernetes.simulation.world import World, owner_reference, short_hash

Obj = dict[str, Any]

POLICY = "ClusterPolicy.nvidia.com"
_DRIVER_INSTALL_S = 300.0


@dataclass(frozen=True)
class Operand:
    """One state of the operator: its DaemonSet, the section of the ClusterPolicy that switches it, its node label."""

    state: str
    daemonset: str
    section: str
    gate: str
    port: int | None = None


OPERANDS = (
    Operand("state-driver", "nvidia-driver-daemonset", "driver", "driver"),
    Operand("state-container-toolkit", "nvidia-container-toolkit-daemonset", "toolkit", "container-toolkit"),
    Operand("state-device-plugin", "nvidia-device-plugin-daemonset", "devicePlugin", "device-plugin"),
    Operand("gpu-feature-discovery", "gpu-feature-discovery", "gfd", "gpu-feature-discovery"),
    Operand("state-dcgm-exporter", "nvidia-dcgm-exporter", "dcgmExporter", "dcgm-exporter", port=9400),
    Operand("state-operator-validation", "nvidia-operator-validator", "validator", "operator-validator"),
)


def is_enabled(policy: Obj, operand: Operand) -> bool:
    """Whether the policy wants the operand; the validator always runs."""
    return bool((policy["spec"].get(operand.section) or {}).get("enabled", True))


def daemonset(policy: Obj, operand: Operand, namespace: str) -> Obj:
    """The DaemonSet of one operand."""
    spec, common = policy["spec"], policy["spec"].get("daemonsets") or {}
    section = spec.get(operand.section) or {}
    image = f"{section.get('repository', 'nvcr.io/nvidia')}/{section.get('image', operand.gate)}"
    labels = {"app": operand.daemonset, **(common.get("labels") or {})}
    # Discovery reads the plugin's configuration, too: it says on the node how GPUs are shared.
    shared = (spec.get("devicePlugin") or {}).get("config") if operand.section == "gfd" else None
    fingerprint = short_hash(json.dumps([section, spec.get("mig"), shared], sort_keys=True))
    container: Obj = {
        "name": f"{operand.daemonset}-ctr",
        "image": f"{image}:{section.get('version', 'latest')}",
        # A changed section restarts the pods, as the operator's template hash does.
        "env": [{"name": "OPERAND_CONFIG", "value": fingerprint}],
        "securityContext": {"privileged": True},
    }
    probe = {"exec": {"command": ["sh", "-c", "nvidia-smi"]}, "periodSeconds": 10}
    if operand.section == "driver":
        container["startupProbe"] = {**probe, "initialDelaySeconds": 60, "failureThreshold": 120}
    else:
        container["readinessProbe"] = {**probe, "periodSeconds": 5}
    if operand.port:
        container["ports"] = [{"name": "metrics", "containerPort": operand.port}]
    pod = {
        "containers": [container],
        "nodeSelector": {f"nvidia.com/gpu.deploy.{operand.gate}": "true"},
        "tolerations": common.get("tolerations") or [],
        "priorityClassName": common.get("priorityClassName", "system-node-critical"),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": operand.daemonset,
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [owner_reference(policy)],
        },
        "spec": {
            "selector": {"matchLabels": {"app": operand.daemonset}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        },
    }


def operand_program(launch: Launch) -> Program | None:
    """The program of an operand's pod: healthy when what it waits for on its machine is there."""
    machine, app = launch.machine, (launch.pod["metadata"].get("labels") or {}).get("app")
    match app:
        case "nvidia-driver-daemonset":
            lines = (
                Line(1, "Creating directory NVIDIA-Linux-x86_64"),
                Line(_DRIVER_INSTALL_S, "Done, now waiting for signal"),
            )
            return Gate(lambda: machine.nvidia, takes=_DRIVER_INSTALL_S, lines=lines)
        case "nvidia-container-toolkit-daemonset":
            waiting = Line(0.5, "waiting for driver validations to complete")
            return Gate(lambda: machine.driver is not None, takes=5.0, lines=(waiting,))
        case "nvidia-device-plugin-daemonset" | "gpu-feature-discovery" | "nvidia-operator-validator":
            return Gate(lambda: machine.driver is not None and machine.toolkit, takes=3.0)
        case _:
            return None


class OperandEffects(Agent):
    """What follows when an operand's pod is ready on a node, and when it is gone."""

    def __init__(self, world: World, workers: NfdWorkers) -> None:
        super().__init__(world)
        self._workers = workers
        self._offered: dict[str, dict[str, int]] = {}

    def is_mine(self, pod: Obj) -> bool:
        """A pod of any operand."""
        return self._app(pod) in {operand.daemonset for operand in OPERANDS}

    def ready(self, pod: Obj) -> None:
        """Drivers load, runtimes get configured, labels and resources appear."""
        machine = self.world.machines[pod["spec"]["nodeName"]]
        match self._app(pod):
            case "nvidia-driver-daemonset":
                image = pod["spec"]["containers"][0]["image"]
                machine.driver = image.rpartition(":")[2].partition("-")[0]
            case "nvidia-container-toolkit-daemonset":
                machine.toolkit = True
            case "gpu-feature-discovery":
                self.world.after(self.world.settings.agent_s, lambda: self._discover(pod))
            case "nvidia-device-plugin-daemonset":
                self._register(machine.name)

    def gone(self, pod: Obj) -> None:
        """The pod took its effect with it, except what the machine image brought."""
        machine = self.world.machines[pod["spec"]["nodeName"]]
        match self._app(pod):
            case "nvidia-driver-daemonset":
                machine.driver = machine.profile.driver
            case "nvidia-container-toolkit-daemonset":
                machine.toolkit = machine.profile.nvidia_runtime
            case "gpu-feature-discovery":
                self._workers.drop(machine.name, None)
            case "nvidia-device-plugin-daemonset":
                for resource in self._offered.pop(machine.name, {}):
                    offer(self.world, machine.name, resource, 0)

    def refresh(self, node: str) -> None:
        """Devices of a machine changed (one was lost): plugin and discovery report anew."""
        if node in self._offered:
            self._register(node)
            self._drop_labels(node)

    def _discover(self, pod: Obj) -> None:
        if self.still_live(pod):
            self._drop_labels(pod["spec"]["nodeName"])

    def _drop_labels(self, node: str) -> None:
        machine = self.world.machines[node]
        found = gpu_labels.labels(machine, self._sharing(node), mig=self._mig(), now=self.world.driver.seconds())
        self._workers.drop(node, found)

    def _register(self, node: str) -> None:
        wanted = gpu_labels.resources(self.world.machines[node], self._sharing(node), mig=self._mig())
        for resource, count in wanted.items():
            offer(self.world, node, resource, count)
        for resource in set(self._offered.get(node, {})) - set(wanted):
            offer(self.world, node, resource, 0)
        self._offered[node] = wanted

    def _mig(self) -> str:
        policy = find_policy(self.world)
        return str(((policy or {}).get("spec", {}).get("mig") or {}).get("strategy", "single"))

    def _sharing(self, node: str) -> Sharing:
        """Time-slicing from the ConfigMap that the policy names, else what the host itself is set to."""
        policy = find_policy(self.world)
        config = ((policy or {}).get("spec", {}).get("devicePlugin") or {}).get("config") or {}
        labels = self.world.view.nodes[node]["metadata"].get("labels") or {}
        key = labels.get("nvidia.com/device-plugin.config") or config.get("default")
        for candidate in self.world.store.list("ConfigMap") if config.get("name") and key else []:
            if candidate["metadata"]["name"] == config["name"] and key in (candidate.get("data") or {}):
                return _read_sharing(candidate["data"][key])
        return Sharing(self.world.machines[node].profile.replicas)

    @staticmethod
    def _app(pod: Obj) -> str:
        return str((pod["metadata"].get("labels") or {}).get("app", ""))


def find_policy(world: World) -> Obj | None:
    """The ClusterPolicy, when its CRD is installed and one exists."""
    if world.store.find("CustomResourceDefinition", None, "clusterpolicies.nvidia.com") is None:
        return None
    return next(iter(world.store.list(POLICY)), None)


def _read_sharing(text: str) -> Sharing:
    loaded = yaml.safe_load(text) or {}
    slicing = (loaded.get("sharing") or {}).get("timeSlicing") or {}
    for resource in slicing.get("resources") or []:
        if resource.get("name") == "nvidia.com/gpu":
            return Sharing(int(resource.get("replicas", 1)), bool(slicing.get("renameByDefault")))
    return Sharing()
