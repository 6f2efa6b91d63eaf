"""HAMi 2.10: its device plugin registers cards on nodes, its scheduler hands out slices of them."""

from __future__ import annotations

import json
from typing import Any

import yaml

from sandbox.kubernetes.simulation.addons.agents import Agent, annotate_node, images_of, offer
from sandbox.kubernetes.simulation.addons.slices import Card, Slice, cards_of, fit, wanted_slices
from sandbox.kubernetes.simulation.gpu_runtime import ALLOCATED, chosen_cards
from sandbox.kubernetes.simulation.machines import Machine
from sandbox.kubernetes.simulation.placement import NodeRoom
from sandbox.kubernetes.simulation.programs import Crash, Launch, Program
from sandbox.kubernetes.simulation.view import is_finished

Obj = dict[str, Any]

REGISTER = "hami.io/node-nvidia-register"
_COMPONENT = "app.kubernetes.io/component"
_RESOURCES = ("nvidia.com/gpu", "nvidia.com/gpumem", "nvidia.com/gpumem-percentage", "nvidia.com/gpucores")


def _component(pod: Obj) -> str:
    return str((pod["metadata"].get("labels") or {}).get(_COMPONENT, ""))


class HamiPlugins(Agent):
    """A ready plugin pod writes the register annotation; annotations stay when it goes, the resource drops to 0."""

    def is_mine(self, pod: Obj) -> bool:
        """A pod of the device plugin."""
        return _component(pod) == "hami-device-plugin" and "hami" in images_of(pod)

    def ready(self, pod: Obj) -> None:
        """Register after the plugin's first round."""
        self.world.after(self.world.settings.agent_s, lambda: self._register(pod))

    def gone(self, pod: Obj) -> None:
        """Kubelet sees the plugin's socket close."""
        node = pod["spec"]["nodeName"]
        if node in self.world.view.nodes:
            offer(self.world, node, "nvidia.com/gpu", 0)

    def refresh(self, node: str) -> None:
        """A device's health changed: the plugin writes the annotation anew."""
        for pod in self.world.view.pods_on(node):
            if self.is_mine(pod):
                self._register(pod)

    def _register(self, pod: Obj) -> None:
        node = pod["spec"]["nodeName"]
        machine = self.world.machines.get(node)
        if machine is None or not self.still_live(pod):
            return
        options = self._options(pod)
        split, scaling = int(options.get("deviceSplitCount", 10)), float(options.get("deviceMemoryScaling", 1))
        entries = [_entry(machine, index, split, scaling) for index in range(len(machine.devices))]
        text = json.dumps(entries, separators=(",", ":"))
        seen = (self.world.view.nodes[node]["metadata"].get("annotations") or {}).get("hami.io/node-handshake")
        moment = self.world.now().replace("T", " ").rstrip("Z")
        annotate_node(self.world, node, {REGISTER: text, "hami.io/node-handshake": seen or f"Requesting_{moment}"})
        offer(self.world, node, "nvidia.com/gpu", len(machine.healthy()) * split)

    def _options(self, pod: Obj) -> Obj:
        for volume in pod["spec"].get("volumes") or []:
            name = (volume.get("configMap") or {}).get("name")
            found = self.world.store.find("ConfigMap", pod["metadata"]["namespace"], name) if name else None
            text = ((found or {}).get("data") or {}).get("device-config.yaml")
            if text:
                return dict((yaml.safe_load(text) or {}).get("nvidia") or {})
        return {}


def _entry(machine: Machine, index: int, split: int, scaling: float) -> Obj:
    """One card in the register; Go's omitempty leaves out zeros and false."""
    device = machine.devices[index]
    name = device.model.name if device.model.name.startswith("NVIDIA") else f"NVIDIA-{device.model.name}"
    row: Obj = {
        "id": device.uuid, "index": index, "count": split, "devmem": int(device.model.memory_mib * scaling),
        "devcore": 100, "type": name, "numa": device.numa, "mode": "hami-core", "health": not device.lost,
    }  # fmt: skip
    return {key: value for key, value in row.items() if value not in (0, False)}


def plugin_program(launch: Launch) -> Program | None:
    """The plugin container: needs NVML, hence driver and the nvidia runtime, or it ends at once."""
    if _component(launch.pod) != "hami-device-plugin" or launch.container["name"] != "device-plugin":
        return None
    machine = launch.machine
    injected = machine.profile.nvidia_runtime or bool(launch.pod["spec"].get("runtimeClassName"))
    if machine.nvidia and machine.driver is not None and machine.toolkit and injected:
        return None
    return Crash(
        "I1123 12:00:00.000000       1 main.go:293] Retrieving plugins.",
        "E1123 12:00:00.100000       1 factory.go:112] Incompatible strategy detected auto",
        "E1123 12:00:00.100100       1 factory.go:113] If this is a GPU node, did you configure the NVIDIA Container "
        "Toolkit?",
        "E1123 12:00:00.200000       1 main.go:173] error starting plugins: error creating plugin manager: unable to "
        "create plugin manager: invalid device discovery strategy",
    )


class HamiScheduler(Agent):
    """`hami-scheduler` with its webhook: pods that ask for NVIDIA resources are placed by cards, not by node totals."""

    ignored = frozenset({*_RESOURCES, "nvidia.com/priority"})

    def is_mine(self, pod: Obj) -> bool:
        """The scheduler's own pod."""
        return _component(pod) == "hami-scheduler" and "hami" in images_of(pod)

    def serves(self) -> bool:
        """Whether scheduler and webhook are both there."""
        return self.is_up and any(
            hook["name"].endswith("hami.io")
            for configuration in self.world.store.list("MutatingWebhookConfiguration")
            for hook in configuration.get("webhooks") or []
        )

    def claims(self, pod: Obj) -> bool:
        """Whether the webhook would send the pod here."""
        labels, spec = pod["metadata"].get("labels") or {}, pod["spec"]
        if spec.get("schedulerName", "default-scheduler") not in ("default-scheduler", "hami-scheduler"):
            return False
        limits = [(container.get("resources") or {}).get("limits") or {} for container in spec["containers"]]
        asks = any(name in one for one in limits for name in _RESOURCES)
        namespace = self.world.store.find("Namespace", None, pod["metadata"]["namespace"]) or {"metadata": {}}
        opted_out = "ignore" in (
            labels.get("hami.io/webhook"), (namespace["metadata"].get("labels") or {}).get("hami.io/webhook")
        )  # fmt: skip
        return asks and not opted_out and self.serves()

    def choose(self, pod: Obj, nodes: list[NodeRoom]) -> NodeRoom | str:
        """Pack nodes, spread over the cards of a node; book the slices on the pod."""
        best: tuple[float, NodeRoom, list[list[Slice]]] | None = None
        refused: list[str] = []
        for room in nodes:
            cards = self._cards(room.name)
            chosen = fit(wanted_slices(pod), cards)
            if isinstance(chosen, str):
                refused.append(f"{room.name}: {chosen}")
                continue
            fill = sum(card.used_mib for card in cards) / max(sum(card.total_mib for card in cards), 1)
            if best is None or fill > best[0]:
                best = fill, room, chosen
        if best is None:
            details = "; ".join(refused[:8])
            return f"no available node, {len(nodes)} nodes do not meet" + (f": {details}" if details else "")
        self._book(pod, best[1].name, best[2])
        return best[1]

    def _cards(self, node: str) -> list[Card]:
        annotations = self.world.view.nodes[node]["metadata"].get("annotations") or {}
        cards = cards_of(annotations.get(REGISTER, ""), annotations.get("hami.io/device-cordon", ""))
        for pod in self.world.view.pods_on(node):
            if is_finished(pod):
                continue
            for uuid, (mib, cores) in chosen_cards(pod).items():
                for card in cards:
                    if card.uuid == uuid:
                        card.take(mib, cores)
        return cards

    def _book(self, pod: Obj, node: str, chosen: list[list[Slice]]) -> None:
        text = "".join(
            "".join(f"{one.uuid},NVIDIA,{one.mib},{one.cores}:" for one in container) + ";" for container in chosen
        )
        moment = str(int(self.world.driver.seconds()))
        notes = {
            ALLOCATED: text,
            "hami.io/vgpu-devices-to-allocate": text,
            "hami.io/vgpu-node": node,
            "hami.io/vgpu-time": moment,
            "hami.io/bind-phase": "success",
            "hami.io/bind-time": moment,
        }

        def write(current: Obj) -> None:
            current["metadata"].setdefault("annotations", {}).update(notes)

        self.world.change(pod, write)

    def admit(self, pod: Obj) -> None:
        """The webhook: such a pod is for this scheduler and gets the plugin's RuntimeClass."""
        if self.claims(pod):
            pod["spec"]["schedulerName"] = "hami-scheduler"
            runtime = self._runtime_class()
            if runtime:
                pod["spec"].setdefault("runtimeClassName", runtime)

    def _runtime_class(self) -> str | None:
        """The chart gives the plugin's RuntimeClass to the webhook, which puts it on every pod that it takes."""
        for one in self.world.store.list("DaemonSet"):
            if (one["metadata"].get("labels") or {}).get(_COMPONENT) == "hami-device-plugin":
                found: str | None = one["spec"]["template"]["spec"].get("runtimeClassName")
                return found
        return None
