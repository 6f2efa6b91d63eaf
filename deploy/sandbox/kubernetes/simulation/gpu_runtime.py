"""How containers come to see NVIDIA devices: runtime classes, the host's default runtime, CDI."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.errors import Forbidden
from sandbox.kubernetes.simulation.machines import Device, Machine
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]


ALLOCATED = "hami.io/vgpu-devices-allocated"


def chosen_cards(pod: Obj) -> dict[str, tuple[int, int]]:
    """The slices that HAMi gave a pod: card UUID to (MiB, percent of cores); empty for other pods."""
    text = (pod["metadata"].get("annotations") or {}).get(ALLOCATED, "")
    parts = [piece.split(",") for piece in text.replace(";", ":").split(":") if piece]
    return {part[0]: (int(part[2]), int(part[3])) for part in parts if len(part) == 4}


def check_runtime_class(world: World, pod: Obj) -> None:
    """Raises Forbidden for a pod whose RuntimeClass does not exist."""
    name = pod["spec"].get("runtimeClassName")
    if name and world.store.find("RuntimeClass", None, name) is None:
        raise Forbidden("pods", "", pod["metadata"]["name"], f'pod rejected: RuntimeClass "{name}" not found')


def sandbox_problem(world: World, pod: Obj, machine: Machine) -> str | None:
    """Why containerd cannot make the sandbox: the handler of the RuntimeClass is not configured on the machine."""
    name = pod["spec"].get("runtimeClassName")
    if not name:
        return None
    found = world.store.find("RuntimeClass", None, name)
    if found is None:
        return f'RuntimeClass.node.k8s.io "{name}" not found'
    handler = found["handler"]
    if handler.startswith("nvidia") and not machine.toolkit:
        return (
            f'rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for "{handler}" is configured'
        )
    return None


def visible_devices(pod: Obj, machine: Machine, held: list[Device]) -> list[Device]:
    """The devices that CUDA finds in a container.

    The host's default runtime or a RuntimeClass injects what the plugin handed out; the operator's own plugin
    (26.7.0, CDI by default) needs neither; HAMi's plugin does.
    """
    if not machine.nvidia or machine.driver is None or not machine.toolkit:
        return []
    injected = machine.profile.nvidia_runtime or bool(pod["spec"].get("runtimeClassName"))
    by_operator = not chosen_cards(pod)
    return [device for device in held if not device.lost] if injected or by_operator else []
