"""What the live pods of a cluster ask for: all of them together, and node by node those without a row of their own."""

from typing import Final, NamedTuple

from budcluster.hardware.inventory_store import Load, PodKey
from budcluster.hardware.reading.labels import MOST_IN_SUM

_MILLI: Final = 1000


class Request(NamedTuple):
    """What one pod asks for."""

    cpu_milli: int
    memory_bytes: int
    node: str | None = None
    """Where it is counted; None while it waits for a node, and for one that has a row of its own."""
    is_copy: bool = False
    """Whether it is a copy of a deployment."""


class PodSums:
    """Sums that follow each pod as it comes, changes and goes."""

    def __init__(self) -> None:
        self.changed: set[str] = set()
        """Nodes whose sums have changed since somebody last took them out."""
        self._requests: dict[PodKey, Request] = {}
        self._alike: dict[Request, Request] = {}
        self._cpu_milli = 0
        self._memory_bytes = 0
        self._nodes: dict[str, tuple[int, int, int, int]] = {}

    @property
    def cpu_cores(self) -> float:
        """Of all pods."""
        return self._cpu_milli / _MILLI

    @property
    def memory_bytes(self) -> int:
        """Of all pods."""
        return min(self._memory_bytes, MOST_IN_SUM)

    def see(self, key: PodKey, request: Request | None) -> None:
        """What a pod asks for now; None: it is gone."""
        before = self._requests.pop(key, None)
        if request is not None:
            # Most pods ask for the same few amounts: one object each.
            self._requests[key] = self._alike.setdefault(request, request)
        if before != request:
            self._add(before, -1)
            self._add(request, 1)

    def load(self, node: str) -> Load:
        """What is counted on a node."""
        cpu, memory, copies_cpu, copies_memory = self._nodes.get(node, (0, 0, 0, 0))
        return Load(cpu / _MILLI, min(memory, MOST_IN_SUM), copies_cpu / _MILLI, min(copies_memory, MOST_IN_SUM))

    def _add(self, request: Request | None, sign: int) -> None:
        if request is None:
            return
        cpu, memory = sign * request.cpu_milli, sign * request.memory_bytes
        self._cpu_milli += cpu
        self._memory_bytes += memory
        if request.node is None:
            return
        copy = (cpu, memory) if request.is_copy else (0, 0)
        before = self._nodes.get(request.node, (0, 0, 0, 0))
        after = (before[0] + cpu, before[1] + memory, before[2] + copy[0], before[3] + copy[1])
        self._nodes[request.node] = after
        if not any(after):
            del self._nodes[request.node]
        self.changed.add(request.node)
