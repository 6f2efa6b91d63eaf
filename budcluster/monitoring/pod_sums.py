"""What the live pods of a cluster ask for: all of them together, and node by node those without a row of their own."""

from collections.abc import Collection
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
    deployment: str | None = None
    """Whose copy it says it is."""


class PodSums:
    """Sums that follow each pod as it comes, changes and goes."""

    def __init__(self) -> None:
        self.changed: set[str] = set()
        """Nodes whose sums have changed since they were taken last."""
        self._requests: dict[PodKey, Request] = {}
        self._cpu_milli = 0
        self._memory_bytes = 0
        self._nodes: dict[str, dict[str | None, tuple[int, int]]] = {}
        """Node -> deployment -> milli and bytes."""

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
            self._requests[key] = request
        if before != request:
            self._add(before, -1)
            self._add(request, 1)

    def take(self, nodes: Collection[str]) -> dict[str, Load]:
        """What is counted on those of these nodes where that has changed; other nodes are gone, and forgotten."""
        loads = {name: self._load(name) for name in self.changed if name in nodes}
        self.changed.clear()
        return loads

    def _load(self, node: str) -> Load:
        its = self._nodes.get(node, {})
        copies = {name: _amounts(*one) for name, one in its.items() if name is not None}
        cpu, memory = _amounts(sum(cpu for cpu, _ in its.values()), sum(memory for _, memory in its.values()))
        return Load(cpu, memory, copies)

    def _add(self, request: Request | None, sign: int) -> None:
        if request is None:
            return
        cpu, memory = sign * request.cpu_milli, sign * request.memory_bytes
        self._cpu_milli += cpu
        self._memory_bytes += memory
        if request.node is None:
            return
        its = self._nodes.setdefault(request.node, {})
        before = its.pop(request.deployment, (0, 0))
        after = (before[0] + cpu, before[1] + memory)
        if any(after):
            its[request.deployment] = after
        if not its:
            del self._nodes[request.node]
        self.changed.add(request.node)


def _amounts(cpu_milli: int, memory_bytes: int) -> tuple[float, int]:
    return cpu_milli / _MILLI, min(memory_bytes, MOST_IN_SUM)
