"""Puts replicas into the rooms of a cluster, one after another. Rooms that are alike are looked at once."""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from budcluster.deployment.fitting.demands import Demand
from budcluster.deployment.fitting.rooms import Room
from budcluster.deployment.fitting.sizing import CORES_PER_GPU, MEMORY_GIB_PER_GPU, Estimate
from budcluster.hardware.reading.profile import GpuVendor, Sharing

_BF16: Final = (8, 0)
_FP8: Final = (8, 9)
_PLAIN: Final = ("nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi")
_PARTS: Final = {Sharing.TIME_SLICING, Sharing.MPS, Sharing.MIG}


class Stock:
    """The rooms of a cluster, and what is left of them as replicas move in."""

    def __init__(self, rooms: Iterable[Room]) -> None:
        self._nodes: list[str] = []
        self._rooms: list[Room] = []
        """Without their nodes' names, in the order in which they came."""
        self._kinds: dict[Room, list[int]] = defaultdict(list)
        """The same rooms -> their places in that order, as a heap."""
        for place, room in enumerate(rooms):
            self._nodes.append(room.node)
            self._rooms.append(_kind(room))
            self._kinds[self._rooms[place]].append(place)

    def copy(self) -> "Stock":
        """The same rooms, for trying something out."""
        twin = Stock(())
        twin._nodes = self._nodes
        twin._rooms = self._rooms.copy()
        twin._kinds = defaultdict(list, {kind: places.copy() for kind, places in self._kinds.items()})
        return twin

    def kinds(self) -> list[tuple[Room, list[str]]]:
        """Each kind of room with the nodes that have one."""
        return [(kind, [self._nodes[place] for place in places]) for kind, places in self._kinds.items() if places]

    def rooms(self) -> list[Room]:
        """The rooms as they are now, in the order in which they came."""
        return [replace(room, node=node) for room, node in zip(self._rooms, self._nodes, strict=True)]

    def regain(self, before: Sequence[Room], after: Sequence[Room]) -> None:
        """Add what is free in one view of the rooms beyond what is free in an earlier one."""
        for place, (earlier, later) in enumerate(zip(before, after, strict=True)):
            if earlier is not later:
                self._put(place, self._rooms[place].regaining(earlier, later))

    def narrow(self, other: "Stock") -> None:
        """Leave what is free in another stock of the same rooms as well."""
        for place, (mine, its) in enumerate(zip(self._rooms, other._rooms, strict=True)):  # noqa: SLF001 - of its kind
            if mine is not its:
                self._put(place, mine.least(its))

    def _put(self, place: int, room: Room) -> None:
        places = self._kinds[self._rooms[place]]
        places.remove(place)
        heapq.heapify(places)
        self._rooms[place] = _kind(room)
        heapq.heappush(self._kinds[self._rooms[place]], place)

    def resources(self, demand: Demand) -> list[str]:
        """Names by which the demand's devices could be asked for, plain ones first, then the largest slices."""
        sizes: dict[str, int] = {}
        for kind, places in self._kinds.items():
            if places and kind.vendor in demand.vendors and demand.resource in {None, kind.resource}:
                sizes[kind.resource] = max(sizes.get(kind.resource, 0), kind.memory_mib or 0)
        return sorted(sizes, key=lambda name: (name not in _PLAIN, -sizes[name], name))

    def place(self, demand: Demand) -> list[str]:
        """Put in as many replicas as there is room for, tightest node first; the nodes they stand on.

        Nodes of which all is known that matters come before the others.
        """
        if demand.resource is None:
            name = self.best_resource(demand)
            return self.place(replace(demand, resource=name)) if name else []
        size, count, share = demand.sized(), demand.shape.devices, demand.share
        offers: list[tuple[bool, int, int, int, Room, tuple[int, ...]]] = []
        number = itertools.count()

        def offer(kind: Room, found: tuple[int, ...]) -> None:
            in_doubt = bool(unknowns(demand, kind))
            heapq.heappush(offers, (in_doubt, kind.whole_devices, self._kinds[kind][0], next(number), kind, found))

        def consider(kind: Room) -> None:
            if found := None if refusals(demand, kind, size) else kind.fitting(count, share=share):
                offer(kind, found)

        for kind in [kind for kind, places in self._kinds.items() if places]:
            consider(kind)
        nodes: list[str] = []
        while offers and len(nodes) < demand.replicas:
            *_, place, _, kind, found = heapq.heappop(offers)
            if not self._kinds[kind] or self._kinds[kind][0] != place:
                continue  # it was taken by way of an earlier offer of its kind
            nodes.append(self._nodes[heapq.heappop(self._kinds[kind])])
            if self._kinds[kind]:
                offer(kind, found)
            rest = self._rooms[place] = kind.taking(found, share=share)
            heapq.heappush(self._kinds[rest], place)
            if self._kinds[rest][0] == place:
                consider(rest)
        return nodes

    def best_resource(self, demand: Demand) -> str | None:
        """The first name by which all replicas find room, else the one by which most do; None: there is none."""
        best, most = None, -1
        for name in self.resources(demand):
            placed = len(self.copy().place(replace(demand, resource=name)))
            if placed > most:
                best, most = name, placed
            if placed == demand.replicas:
                break
        return best


def _kind(room: Room) -> Room:
    return replace(room, node="")


def refusals(demand: Demand, room: Room, size: Estimate | None) -> list[str]:
    """Reasons that no free GPU would cure."""
    if room.vendor not in demand.vendors:
        return [f"its GPUs are made by {room.vendor}, and the runtime's image does not run on them"]
    if demand.resource not in {None, room.resource}:
        return [f"its GPUs are asked for as {room.resource}, and the deployment's pods ask for {demand.resource}"]
    reasons = [*_model_refusals(demand, room), *_sharing_refusals(demand, room), *_format_refusals(demand, room)]
    driver = demand.min_driver_major
    if driver and room.vendor is GpuVendor.NVIDIA and room.driver_major is not None and room.driver_major < driver:
        reasons.append(f"its NVIDIA driver is {room.driver_major}, and the image needs {driver} or newer")
    memory = demand.share.memory_mib if demand.share else room.memory_mib
    if size is not None and memory is not None and not size.fits(memory):
        reasons.append(f"a device needs {size.needed_mib()} MiB, and has {memory} MiB")
    return reasons


def _model_refusals(demand: Demand, room: Room) -> list[str]:
    if demand.gpu_model is None:
        return []
    if demand.gpu_model != room.model:
        found = room.model or "not of one known model"
        return [f"its GPUs are {found}, and {demand.gpu_model} was asked for"]
    if room.sharing is Sharing.MIG and room.resource in _PLAIN:
        return ["all its GPUs are cut into equal MIG slices, which gpu_model does not name; ask without it"]
    return []


def _sharing_refusals(demand: Demand, room: Room) -> list[str]:
    reasons = []
    if demand.share and room.sharing is not Sharing.HAMI:
        reasons.append("a share of a GPU was asked for, and only HAMi gives shares with a memory limit")
    if demand.share and demand.shape.devices > 1:
        reasons.append("several GPUs per replica crash on shares of GPUs; ask for whole ones")
    if demand.shape.devices > 1 and room.sharing in _PARTS:
        reasons.append(f"several GPUs per replica do not work with {room.sharing}")
    return reasons


def _format_refusals(demand: Demand, room: Room) -> list[str]:
    capability = room.compute_capability
    if capability is None:
        return []
    shown = f"{capability[0]}.{capability[1]}"
    if demand.shape.dtype == "bfloat16" and capability < _BF16:
        return [f"bfloat16 needs compute capability 8.0, and its GPUs have {shown}; use float16"]
    if demand.shape.quantization == "fp8" and capability < _FP8:
        return [f"fp8 needs compute capability 8.9, and its GPUs have {shown}"]
    return []


def unknowns(demand: Demand, room: Room) -> list[str]:
    """What would have to be known of the room to be sure."""
    found = []
    if room.memory_mib is None and not demand.share:
        found.append(f"how much memory the GPUs of node {room.node} have is not known")
    driver = demand.min_driver_major
    if driver and room.vendor is GpuVendor.NVIDIA and room.driver_major is None:
        found.append(f"which NVIDIA driver node {room.node} has is not known, and the image needs {driver} or newer")
    return found


def short_of_host(demand: Demand, room: Room) -> str | None:
    """What the node lacks beside GPUs; None when it has enough."""
    cores, memory_gib = demand.shape.devices * CORES_PER_GPU, demand.shape.devices * MEMORY_GIB_PER_GPU
    asked = f"a replica asks for {cores} processors and {memory_gib} GiB of memory beside its GPUs"
    few = [f"processors the node has {max(room.cores, 0)} left"] if room.cores < cores else []
    little = [f"memory the node has {max(room.memory_gib, 0)} GiB left"] if room.memory_gib < memory_gib else []
    return ", and of ".join([asked, *few, *little]) if few or little else None
