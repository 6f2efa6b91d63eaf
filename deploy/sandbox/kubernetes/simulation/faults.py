"""Faults of the simulated world, ordered by name; those of the API server itself live with the server."""

from collections.abc import Callable
from typing import Any

from sandbox.kubernetes.errors import BadRequest
from sandbox.kubernetes.simulation.addons.installed import AddOns
from sandbox.kubernetes.simulation.containers import Container
from sandbox.kubernetes.simulation.controllers.nodes import NodeController
from sandbox.kubernetes.simulation.kubelet import KubeletFleet
from sandbox.kubernetes.simulation.programs import Exit
from sandbox.kubernetes.simulation.volumes import ClaimController
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]

_LINES = {
    "cuda": (
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        "EngineCore encountered a fatal error.",
    ),
    "nccl": (
        "[rank0]:[E1123 12:00:00 ProcessGroupNCCL.cpp:685] [PG ID 0 PG GUID 0 Rank 0] Watchdog caught collective "
        "operation timeout: WorkNCCL(SeqNum=118, OpType=ALLREDUCE, Timeout(ms)=600000)",
        "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
    ),
    "xid": ("NVRM: Xid (PCI:0000:10:00): 79, pid=1, GPU has fallen off the bus.",),
}


class Faults:
    """Each fault is a method here; `inject` finds it by name. Arguments are JSON values."""

    def __init__(
        self, world: World, *, fleet: KubeletFleet, nodes: NodeController, addons: AddOns, claims: ClaimController
    ) -> None:
        self._world = world
        self._fleet = fleet
        self._nodes = nodes
        self._addons = addons
        self._claims = claims
        self._names: dict[str, Callable[..., None]] = {
            "node_not_ready": self.node_not_ready,
            "node_ready": self.node_ready,
            "gpu_lost": self.gpu_lost,
            "gpu_found": self.gpu_found,
            "pod_oom": self.pod_oom,
            "pod_crash": self.pod_crash,
            "log_error": self.log_error,
            "image_missing": self.image_missing,
            "gated_model": self.gated_model,
            "no_pvc": self.no_pvc,
        }

    def inject(self, name: str, arguments: Obj) -> None:
        """Raises BadRequest for an unknown fault, wrong arguments, or something that does not exist."""
        if name not in self._names:
            raise BadRequest(f'there is no fault "{name}"; known ones: {", ".join(sorted(self._names))}')
        try:
            self._names[name](**arguments)
        except TypeError as error:
            raise BadRequest(f"fault {name}: {error}") from error
        except KeyError as error:
            raise BadRequest(f"fault {name}: there is no {error}") from error

    def node_not_ready(self, node: str) -> None:
        """The kubelet falls silent; taints and eviction follow after their grace periods."""
        self._nodes.silence(node)

    def node_ready(self, node: str) -> None:
        """The kubelet is back."""
        self._nodes.restore(node)

    def gpu_lost(self, node: str, index: int = 0) -> None:
        """A device falls off the bus: plugins report one less, containers that use it crash."""
        machine = self._world.machines[node]
        if index >= len(machine.devices):
            raise KeyError(f"device {index} in {node}")
        device = machine.devices[index]
        device.lost = True
        self._addons.devices_changed(node)
        for worker in self._fleet.workers_on(node):
            if device in machine.devices_of(worker.uid):
                for container in worker.containers:
                    self._fail(container, _LINES["xid"], Exit(0.0, 1))

    def gpu_found(self, node: str, index: int = 0) -> None:
        """The device answers again."""
        self._world.machines[node].devices[index].lost = False
        self._addons.devices_changed(node)

    def pod_oom(self, pod: str, namespace: str = "default", container: str | None = None) -> None:
        """The kernel kills a container that exceeds its memory limit."""
        self._fail(self._container(pod, namespace, container), (), Exit(0.0, 137, "OOMKilled"))

    def pod_crash(self, pod: str, namespace: str = "default", container: str | None = None, code: int = 1) -> None:
        """A container's process ends by itself."""
        self._fail(self._container(pod, namespace, container), (), Exit(0.0, code))

    def log_error(self, pod: str, kind: str = "cuda", namespace: str = "default", crash: bool = True) -> None:
        """A CUDA or NCCL error appears in the log; the process ends unless `crash` is false."""
        found = self._container(pod, namespace, None)
        self._fail(found, _LINES[kind], Exit(0.0, 1) if crash else None)

    def image_missing(self, image: str, missing: bool = True) -> None:
        """No registry has images that match the glob any more, or again (`missing` false)."""
        if missing:
            self._world.missing_images.add(image)
        else:
            self._world.missing_images.discard(image)

    def gated_model(self, model: str, gated: bool = True) -> None:
        """A model asks for access that no token has, or (`gated` false) for none any more."""
        if gated:
            self._world.closed_models.add(model)
        else:
            self._world.closed_models.discard(model)

    def no_pvc(self, broken: bool = True) -> None:
        """Volumes are provisioned no more, or again (`broken` false)."""
        self._claims.broken = broken
        if not broken:
            self._claims.retry_all()

    def _container(self, pod: str, namespace: str, name: str | None) -> Container:
        found = self._world.store.find("Pod", namespace, pod)
        worker = self._fleet.worker(found) if found is not None else None
        container = worker.find(name) if worker is not None else None
        if container is None:
            raise KeyError(f"running container {name or ''} of pod {namespace}/{pod}")
        return container

    def _fail(self, container: Container, lines: tuple[str, ...], ending: Exit | None) -> None:
        if container.attempt is None or not container.running:
            return
        now = self._world.driver.seconds()
        for text in lines:
            container.attempt.say(now, text)
        if ending is not None:
            container.end(ending)
