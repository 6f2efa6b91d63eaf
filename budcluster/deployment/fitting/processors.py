"""Does it fit without GPUs? Looked at node by node, and in sum for pods that have no node yet."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from budcluster.deployment.fitting.demands import ProcessorDemand
from budcluster.deployment.fitting.fit import Fit, PoolReason, Verdict
from budcluster.deployment.fitting.rooms import Asked, cores_left
from budcluster.deployment.fitting.sizing import GIB
from budcluster.hardware.reading.profile import NodeProfile

_AMD64: Final = "amd64"
_VECTORS: Final = ("AVX2", "AVX512F")
_UNSEEN: Final = "what other pods ask of each node is not known yet, so a copy may have to wait for a node"


@dataclass
class _Left:
    cores: float
    memory_gib: int


def check_processors(
    demand: ProcessorDemand,
    nodes: Sequence[NodeProfile],
    *,
    kept: frozenset[str] = frozenset(),
    asked: Asked | None = None,
    by_node: Mapping[str, Asked] | None = None,
    waiting: Iterable[ProcessorDemand] = (),
) -> Fit:
    """Look for places for all replicas, after those of `waiting`: every accepted one, whether it stands or not.

    `kept` are nodes that take only pods with GPUs. `asked` is what all live pods ask for together, `by_node` what they
    ask of each node but for copies of those; what is missing, nobody knows.
    """
    known = by_node or {}
    left = {node.name: _left(node, known.get(node.name)) for node in nodes}
    for earlier in waiting:
        _place(earlier, nodes, left, kept)
    reasons = _reasons(demand, nodes, left, kept)
    places = _place(demand, nodes, left, kept)
    short = _short_in_sum(demand, nodes, asked)
    warnings = demand.doubts if all(node.name in known for node in nodes) else (_UNSEEN, *demand.doubts)
    needed_mib = None if demand.doubts else demand.memory_gib * 1024
    if len(places) == demand.replicas and not short:
        verdict = Verdict.UNKNOWN if demand.doubts else Verdict.YES
        return Fit(verdict, tuple(places), (), (), needed_mib, warnings)
    if short:
        reasons = (PoolReason("the cluster", len(nodes), (short,)),)
    nearest = (f"with {len(places)} replicas it fits",) if 0 < len(places) < demand.replicas and not short else ()
    return Fit(Verdict.NO, () if short else tuple(places), reasons, nearest, needed_mib, warnings)


def _left(node: NodeProfile, asked: Asked | None) -> _Left:
    cores, memory = (asked.cores, asked.memory_bytes) if asked else (0.0, 0)
    return _Left(cores_left(node.cpu.allocatable_cores, cores), (node.allocatable_memory_bytes - memory) // GIB)


def _place(
    demand: ProcessorDemand, nodes: Sequence[NodeProfile], left: dict[str, _Left], kept: frozenset[str]
) -> list[str]:
    """Fill node after node."""
    places: list[str] = []
    for node in nodes:
        if _refusals(demand, node, kept):
            continue
        room = left[node.name]
        fitting = min(int(room.cores // demand.cores), room.memory_gib // demand.memory_gib)
        taken = max(0, min(fitting, demand.replicas - len(places)))
        room.cores -= taken * demand.cores
        room.memory_gib -= taken * demand.memory_gib
        places += [node.name] * taken
    return places


def _refusals(demand: ProcessorDemand, node: NodeProfile, kept: frozenset[str]) -> tuple[str, ...]:
    if node.reasons:
        return tuple(f"node {node.name} {reason}" for reason in node.reasons)
    reasons = []
    if node.name in kept:
        reasons.append("its taint keeps out pods that ask for no GPU")
    if demand.architecture not in {None, node.architecture}:
        reasons.append(f"its processors are {node.architecture}, and the image is made for {demand.architecture}")
    elif demand.needs_vectors and node.architecture == _AMD64 and _lacks_vectors(node):
        reasons.append("its processors have neither AVX2 nor AVX-512, and the runtime's kernels need one of them")
    if demand.processes > (node.numa_nodes or 1):
        known = f"it has {node.numa_nodes}" if node.numa_nodes else "how many it has is not known"
        reasons.append(f"each of {demand.processes} parts wants a NUMA node of its own, and {known}")
    return tuple(reasons)


def _lacks_vectors(node: NodeProfile) -> bool:
    """Whether Node Feature Discovery has looked and found none."""
    return node.cpu.vendor is not None and not any(flag in node.cpu.features for flag in _VECTORS)


def _reasons(
    demand: ProcessorDemand, nodes: Sequence[NodeProfile], left: dict[str, _Left], kept: frozenset[str]
) -> tuple[PoolReason, ...]:
    pools: dict[str, dict[str, None]] = defaultdict(dict)
    counts: dict[str, int] = defaultdict(int)
    for node in nodes:
        pool, room = node.instance_type or node.name, left[node.name]
        counts[pool] += 1
        short = (
            f"a replica asks for {demand.cores} processors and {demand.memory_gib} GiB of memory, and a node has "
            f"{max(0, int(room.cores))} and {max(0, room.memory_gib)} GiB that nobody else has or is to get"
        )
        pools[pool] |= dict.fromkeys(_refusals(demand, node, kept) or (short,))
    return tuple(PoolReason(pool, counts[pool], tuple(found)) for pool, found in sorted(pools.items()))


def _short_in_sum(demand: ProcessorDemand, nodes: Sequence[NodeProfile], asked: Asked | None) -> str | None:
    if asked is None:
        return None
    cores = cores_left(sum(node.cpu.allocatable_cores for node in nodes), asked.cores)
    memory = sum(node.allocatable_memory_bytes for node in nodes) - asked.memory_bytes
    if cores >= demand.cores * demand.replicas and memory >= demand.memory_gib * GIB * demand.replicas:
        return None
    return (
        f"the copies ask for {demand.cores * demand.replicas} processors and {demand.memory_gib * demand.replicas} GiB "
        f"of memory, and of the whole cluster {max(0, int(cores))} and {max(0, memory // GIB)} GiB are not asked for"
    )
