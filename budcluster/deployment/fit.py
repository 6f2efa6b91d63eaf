"""Does it fit? Asked before anything is created, and answered with "yes, here", or "no, because", or "nobody knows".

Requests that were accepted but are not scheduled yet take their place first, so one GPU is never promised twice. The
caller holds a lock per cluster while it asks and writes the row.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from budcluster.deployment.model_facts import ModelFacts
from budcluster.deployment.rooms import Room
from budcluster.deployment.sizing import Estimate, Shape, estimate
from budcluster.hardware.profile import GpuVendor, Sharing

_BF16: Final = (8, 0)
_FP8: Final = (8, 9)
_SUGGESTED_TP: Final = (2, 4, 8)


class Verdict(StrEnum):
    """The three honest answers."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Share:
    """A slice of a GPU, as HAMi gives it."""

    memory_mib: int
    cores_percent: int | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """What one deployment asks of a cluster."""

    shape: Shape
    replicas: int = 1
    facts: ModelFacts | None = None
    """None where the model's config is not known."""
    gpu_model: str | None = None
    share: Share | None = None
    vendors: frozenset[GpuVendor] = frozenset({GpuVendor.NVIDIA})
    """Whose devices the runtime's image runs on."""
    min_driver_major: int | None = None
    """NVIDIA driver that the image's CUDA needs."""
    dtype: str = "auto"

    def sized(self) -> Estimate | None:
        """Memory per device, where the model is known."""
        return estimate(self.facts, self.shape) if self.facts else None


@dataclass(frozen=True, slots=True)
class PoolReason:
    """Why the nodes of one pool do not take the deployment."""

    pool: str
    nodes: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """The answer."""

    verdict: Verdict
    nodes: tuple[str, ...]
    """Where the replicas would stand; fewer than asked when the answer is no."""
    reasons: tuple[PoolReason, ...]
    nearest: tuple[str, ...]
    """Changes that would fit, as sentences."""
    needed_mib: int | None
    """Memory per device; None when the model is not known."""
    warnings: tuple[str, ...] = ()


def check_fit(demand: Demand, rooms: Sequence[Room], *, waiting: Sequence[Demand] = ()) -> Fit:
    """Look for places for all replicas, after those that are `waiting` have taken theirs."""
    left = list(rooms)
    for earlier in waiting:
        left, _ = _place(earlier, left)
    size = demand.sized()
    _, nodes = _place(demand, left)
    complete = len(nodes) == demand.replicas
    known = Verdict.YES if size else Verdict.UNKNOWN
    return Fit(
        verdict=known if complete else Verdict.NO,
        nodes=tuple(nodes),
        reasons=() if complete else _reasons(demand, left, size),
        nearest=() if complete else _nearest(demand, left, size),
        needed_mib=size.needed_mib() if size else None,
        warnings=_warnings(size),
    )


def _place(demand: Demand, rooms: list[Room]) -> tuple[list[Room], list[str]]:
    """Put in as many replicas as there is room for, tightest node first; the rooms left, and the nodes taken."""
    left, nodes = list(rooms), []
    size = demand.sized()
    for _ in range(demand.replicas):
        candidates = [
            (room.whole_devices, position, found)
            for position, room in enumerate(left)
            if not _refusals(demand, room, size)
            and (found := room.fitting(demand.shape.devices, share_mib=_share_mib(demand)))
        ]
        if not candidates:
            break
        _, position, found = min(candidates, key=lambda candidate: candidate[:2])
        left[position] = left[position].taking(found, share_mib=_share_mib(demand))
        nodes.append(left[position].node)
    return left, nodes


def _share_mib(demand: Demand) -> int | None:
    return demand.share.memory_mib if demand.share else None


def _refusals(demand: Demand, room: Room, size: Estimate | None) -> list[str]:
    """Reasons that no free GPU would cure."""
    reasons = []
    if room.vendor not in demand.vendors:
        return [f"its GPUs are made by {room.vendor}, and the runtime's image does not run on them"]
    if demand.gpu_model and demand.gpu_model != room.model:
        reasons.append(f"its GPUs are {room.model or 'not of one known model'}, and {demand.gpu_model} was asked for")
    if demand.share and room.sharing is not Sharing.HAMI:
        reasons.append("a share of a GPU was asked for, and only HAMi gives shares with a memory limit")
    if demand.share and demand.shape.devices > 1:
        reasons.append("several GPUs per replica crash on shares of GPUs; ask for whole ones")
    if demand.shape.devices > 1 and room.sharing in {Sharing.TIME_SLICING, Sharing.MPS, Sharing.MIG}:
        reasons.append(f"several GPUs per replica do not work with {room.sharing}")
    driver = demand.min_driver_major
    if driver and room.vendor is GpuVendor.NVIDIA and room.driver_major is not None and room.driver_major < driver:
        reasons.append(f"its NVIDIA driver is {room.driver_major}, and the image needs {driver} or newer")
    reasons += _format_refusals(demand, room)
    memory = _share_mib(demand) or room.memory_mib
    if size is not None and memory is not None and not size.fits(memory):
        reasons.append(f"a device needs {size.needed_mib()} MiB, and has {memory} MiB")
    return reasons


def _format_refusals(demand: Demand, room: Room) -> list[str]:
    capability = room.compute_capability
    if capability is None:
        return []
    shown = f"{capability[0]}.{capability[1]}"
    if demand.dtype == "bfloat16" and capability < _BF16:
        return [f"bfloat16 needs compute capability 8.0, and its GPUs have {shown}; use float16"]
    if demand.shape.quantization == "fp8" and capability < _FP8:
        return [f"fp8 needs compute capability 8.9, and its GPUs have {shown}"]
    return []


def _reasons(demand: Demand, rooms: Sequence[Room], size: Estimate | None) -> tuple[PoolReason, ...]:
    pools: dict[str, list[Room]] = defaultdict(list)
    for room in rooms:
        pools[room.pool].append(room)
    return tuple(
        PoolReason(pool, len({room.node for room in members}), tuple(_pool_reasons(demand, members, size)))
        for pool, members in sorted(pools.items())
    )


def _pool_reasons(demand: Demand, rooms: list[Room], size: Estimate | None) -> list[str]:
    found: dict[str, None] = {}
    most_free = 0
    for room in rooms:
        refusals = _refusals(demand, room, size)
        if refusals:
            found |= dict.fromkeys(refusals)
        elif room.closed:
            found |= dict.fromkeys(f"node {room.node} {reason}" for reason in room.closed)
        else:
            most_free = max(most_free, room.whole_devices)
    open_rooms = [room for room in rooms if not _refusals(demand, room, size) and not room.closed]
    if open_rooms and demand.share:
        found[f"no device has {demand.share.memory_mib} MiB free"] = None
    elif open_rooms:
        found[
            f"a replica needs {demand.shape.devices} free GPUs on one node, and the most that a node has left is "
            f"{most_free}"
        ] = None
    return list(found)


def _nearest(demand: Demand, rooms: Sequence[Room], size: Estimate | None) -> tuple[str, ...]:
    """The smallest changes that would fit now, at most one of each kind."""
    sentences = []
    if demand.gpu_model and _fits(replace(demand, gpu_model=None), rooms):
        sentences.append("without asking for a GPU model it fits")
    for tensor_parallel in _SUGGESTED_TP if demand.facts and not demand.share else ():
        wider = replace(demand, shape=replace(demand.shape, tensor_parallel=tensor_parallel))
        divides = demand.facts is not None and demand.facts.attention_heads % tensor_parallel == 0
        if tensor_parallel > demand.shape.tensor_parallel and divides and _fits(wider, rooms):
            sentences.append(f"with tensor_parallel_size {tensor_parallel} it fits")
            break
    if size is not None and (context := _largest_context(demand, rooms, size)):
        sentences.append(f"with max_model_len {context} it fits")
    _, nodes = _place(demand, list(rooms))
    if 0 < len(nodes) < demand.replicas:
        sentences.append(f"with {len(nodes)} replicas it fits")
    return tuple(sentences)


def _largest_context(demand: Demand, rooms: Sequence[Room], size: Estimate) -> int | None:
    memories = {_share_mib(demand) or room.memory_mib or 0 for room in rooms if not room.closed}
    for memory in sorted(memories, reverse=True):
        context = size.largest_context(memory) // 256 * 256
        shorter = replace(demand, shape=replace(demand.shape, max_model_len=context))
        if 0 < context < demand.shape.max_model_len and _fits(shorter, rooms):
            return context
    return None


def _fits(demand: Demand, rooms: Sequence[Room]) -> bool:
    return len(_place(demand, list(rooms))[1]) == demand.replicas


def _warnings(size: Estimate | None) -> tuple[str, ...]:
    if size is not None:
        return ()
    return ("the model's config is not known, so whether it fits into the GPUs' memory is not known either",)
