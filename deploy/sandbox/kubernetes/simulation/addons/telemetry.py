"""What exporters measure of the simulated load: devices by node, nodes, engines by pod."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.kubernetes.simulation.machines import Device
from sandbox.kubernetes.simulation.models.engines import Engine
from sandbox.kubernetes.simulation.world import World

if TYPE_CHECKING:
    from sandbox.kubernetes.simulation.kubelet import KubeletFleet

_BUSY_MIB, _IDLE_MIB = 0.92, 4


@dataclass(frozen=True)
class DeviceLoad:
    """One device of a node: percent of time busy, MiB used and free, and the pod that holds it."""

    node: str
    device: Device
    utilisation: float
    used_mib: int
    free_mib: int
    pod: tuple[str, str] | None


@dataclass(frozen=True)
class NodeLoad:
    """One node: cores, share of them busy, bytes of memory in all and available."""

    node: str
    cores: int
    busy: float
    memory: int
    available: int


class Telemetry:
    """Reads the kubelets' workers; `fleet` is set once they exist."""

    fleet: KubeletFleet

    def __init__(self, world: World) -> None:
        self._world = world

    def engines(self) -> Iterator[tuple[str, str, Engine, float]]:
        """Namespace, pod, engine and age of every running model runtime."""
        now = self._world.driver.seconds()
        for worker in self.fleet.workers():
            for container in worker.containers:
                attempt = container.attempt
                if attempt is not None and container.running and isinstance(attempt.program, Engine):
                    yield worker.namespace, worker.name, attempt.program, attempt.age(now)

    def devices(self, node: str) -> list[DeviceLoad]:
        """Every healthy device of a node."""
        machine, now = self._world.machines[node], self._world.driver.seconds()
        holders: dict[str, tuple[tuple[str, str], float, bool]] = {}
        for worker in self.fleet.workers_on(node):
            for container in worker.containers:
                attempt = container.attempt
                if attempt is None or not container.running or not isinstance(attempt.program, Engine):
                    continue
                age = attempt.age(now)
                load = attempt.program.load(age)
                for device in attempt.program.case.devices:
                    holders[device.uuid] = ((worker.namespace, worker.name), load, age >= attempt.program.settled)
        rows = []
        for device in machine.healthy():
            pod, load, loaded = holders.get(device.uuid, (None, 0.0, False))
            used = int(device.model.memory_mib * _BUSY_MIB) if loaded else _IDLE_MIB
            rows.append(DeviceLoad(node, device, round(load * 100), used, device.model.memory_mib - used, pod))
        return rows

    def node(self, name: str) -> NodeLoad:
        """What runs on a node, against its size."""
        profile, now = self._world.machines[name].profile, self._world.driver.seconds()
        milli, used = 200, 2 << 30
        for worker in self.fleet.workers_on(name):
            for container in worker.containers:
                if container.attempt is not None and container.running:
                    usage = container.attempt.program.usage(container.attempt.age(now))
                    milli, used = milli + usage.cpu_milli, used + usage.memory_bytes
        memory = profile.memory_gib << 30
        return NodeLoad(name, profile.cpus, min(milli / 1000 / profile.cpus, 1.0), memory, max(memory - used, 0))

    def nodes_with(self, name: str) -> list[str]:
        """Nodes where an exporter runs, by a part of its image's name."""
        return sorted({
            worker.machine.name
            for worker in self.fleet.workers()
            for container in worker.containers
            if name in str(container.spec["image"]) and container.running and not worker.machine.down
        })  # fmt: skip
