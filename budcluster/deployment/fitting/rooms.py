"""Where a replica could stand: the GPUs of each node as whole devices or shares, with what is free now."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from budcluster.deployment.fitting.sizing import CORES_PER_GPU, GIB, MEMORY_GIB_PER_GPU
from budcluster.hardware.reading.profile import Gpu, GpuPool, GpuVendor, NodeProfile, Sharing

_ALL_CORES: Final = 100


@dataclass(frozen=True, slots=True)
class Share:
    """A slice of each of a replica's GPUs, as HAMi gives it."""

    memory_mib: int
    cores_percent: int | None = None
    """None: as much as others leave."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What pods ask for together."""

    cores: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU or MIG slice that may be given to a replica."""

    free_mib: int | None
    """Memory still unclaimed; None where nobody knows the size."""
    free_shares: int
    untouched: bool
    """Whether no pod holds any of it."""
    free_cores: int = _ALL_CORES
    """Percent of its compute that no pod has claimed."""

    def has(self, share: Share | None) -> bool:
        """Whether a replica could have it: all of it, or the share."""
        if self.free_shares <= 0:
            return False
        if share is None or share.cores_percent == _ALL_CORES:
            return self.untouched and (share is None or (self.free_mib or 0) >= share.memory_mib)
        # HAMi 2.10: who asks for no cores needs some left as well.
        return (self.free_mib or 0) >= share.memory_mib and self.free_cores >= (share.cores_percent or 1)

    def without(self, share: Share | None) -> "Device":
        """What is left of it."""
        if share is None:
            return Device(free_mib=0, free_shares=0, untouched=False, free_cores=0)
        return Device(
            free_mib=(self.free_mib or 0) - share.memory_mib,
            free_shares=self.free_shares - 1,
            untouched=False,
            free_cores=self.free_cores - (share.cores_percent or 0),
        )

    def regaining(self, before: "Device", after: "Device") -> "Device":
        """With what is free of it in one view of the inventory beyond what is free in an earlier one."""
        known = None not in (self.free_mib, before.free_mib, after.free_mib)
        more = (after.free_mib or 0) - (before.free_mib or 0) if known else 0
        return Device(
            free_mib=(self.free_mib or 0) + more if known else self.free_mib,
            free_shares=self.free_shares + after.free_shares - before.free_shares,
            untouched=self.untouched or (after.untouched and self.free_shares == before.free_shares),
            free_cores=self.free_cores + after.free_cores - before.free_cores,
        )

    def least(self, other: "Device") -> "Device":
        """What is free in both views of it."""
        known = [mib for mib in (self.free_mib, other.free_mib) if mib is not None]
        return Device(
            free_mib=min(known, default=None),
            free_shares=min(self.free_shares, other.free_shares),
            untouched=self.untouched and other.untouched,
            free_cores=min(self.free_cores, other.free_cores),
        )


@dataclass(frozen=True, slots=True)
class Room:
    """The devices of one node that are asked for by one resource name."""

    node: str
    pool: str
    """What people call this kind of node: its instance type, or the GPU's model."""
    vendor: GpuVendor
    model: str | None
    """None where it is not known, or where there are several and a pod may get any."""
    resource: str
    sharing: Sharing
    memory_mib: int | None
    """Of the smallest device."""
    driver_major: int | None
    compute_capability: tuple[int, int] | None
    devices: tuple[Device, ...]
    closed: tuple[str, ...]
    """Why the node takes no pods; empty on a usable one."""
    cores: int
    """Of the node: whole ones that no pod asks for, as far as its devices could ever need them."""
    memory_gib: int
    """Likewise."""

    @property
    def whole_devices(self) -> int:
        """Devices that one replica could have for itself."""
        return 0 if self.closed else sum(device.has(None) for device in self.devices)

    def fitting(self, count: int, *, share: Share | None) -> tuple[int, ...] | None:
        """Indexes of `count` devices for one replica: whole ones, or shares of the tightest that have the memory."""
        if self.closed or not self.is_attended(count):
            return None
        usable = [(device.free_mib or 0, -index) for index, device in enumerate(self.devices) if device.has(share)]
        # Of equal ones the last: where devices are only counted, the first are the free ones, and so they stay.
        usable.sort()
        return tuple(-index for _, index in usable[:count]) if len(usable) >= count else None

    def is_attended(self, count: int) -> bool:
        """Whether the node has the processors and the memory that so many devices stand for."""
        return self.cores >= count * CORES_PER_GPU and self.memory_gib >= count * MEMORY_GIB_PER_GPU

    def taking(self, indexes: Sequence[int], *, share: Share | None) -> "Room":
        """The room after a replica has moved in."""
        devices = list(self.devices)
        for index in indexes:
            devices[index] = devices[index].without(share)
        return replace(
            self,
            devices=tuple(devices),
            cores=self.cores - len(indexes) * CORES_PER_GPU,
            memory_gib=self.memory_gib - len(indexes) * MEMORY_GIB_PER_GPU,
        )

    def regaining(self, before: "Room", after: "Room") -> "Room":
        """With what is free in one view of the inventory beyond what is free in an earlier one."""
        views = zip(self.devices, before.devices, after.devices, strict=True)
        return replace(
            self,
            devices=tuple(mine.regaining(earlier, later) for mine, earlier, later in views),
            cores=self.cores + after.cores - before.cores,
            memory_gib=self.memory_gib + after.memory_gib - before.memory_gib,
        )

    def least(self, other: "Room") -> "Room":
        """What is free in both views of it."""
        return replace(
            self,
            devices=tuple(mine.least(its) for mine, its in zip(self.devices, other.devices, strict=True)),
            cores=min(self.cores, other.cores),
            memory_gib=min(self.memory_gib, other.memory_gib),
        )


def rooms_of(nodes: Iterable[NodeProfile], *, asked: Asked | None = None) -> list[Room]:
    """Every room of these nodes, usable or not.

    `asked` is what all pods ask of each of them; where nobody knows, who holds a GPU is taken to hold as much of the
    node as copies of deployments do, and nobody else anything.
    """
    return [room for node in nodes for room in _rooms(node, asked)]


def cores_left(allocatable: float, asked: float) -> float:
    """Cores that are not asked for, to the milli: the difference alone makes 15.999 of 32.98 - 16.98."""
    return round(allocatable - asked, 3)


def _rooms(node: NodeProfile, asked: Asked | None) -> Iterable[Room]:
    """One room a resource name: where several kinds of devices share one, a pod may get any of them."""
    by_name: dict[str, list[GpuPool]] = defaultdict(list)
    for pool in node.pools:
        by_name[pool.resource].append(pool)
    return [_room(node, pools, asked) for pools in by_name.values()]


def _room(node: NodeProfile, pools: list[GpuPool], asked: Asked | None) -> Room:
    first = pools[0]
    if asked is None:
        held = sum(pool.requested for pool in pools)
        asked = Asked(held * CORES_PER_GPU, held * MEMORY_GIB_PER_GPU * GIB)
    gpus = [gpu for gpu in node.gpus if gpu.vendor is first.vendor]
    # Whatever pods hold of them. What a node has beyond that tells it from others, and no replica can use it.
    places = max(sum(pool.advertised for pool in pools), sum(gpu.shares for gpu in gpus))
    cores = math.floor(cores_left(node.cpu.allocatable_cores, asked.cores))
    memory_gib = (node.allocatable_memory_bytes - asked.memory_bytes) // GIB
    sizes = [pool.memory_mib for pool in pools]
    abilities = [pool.compute_capability for pool in pools]
    return Room(
        node=node.name,
        pool=node.instance_type or first.model or first.resource,
        vendor=first.vendor,
        model=first.model if len({pool.model for pool in pools}) == 1 else None,
        resource=first.resource,
        sharing=first.sharing,
        memory_mib=None if None in sizes else min(size for size in sizes if size is not None),
        driver_major=_major(node.driver),
        compute_capability=None if None in abilities else min(one for one in abilities if one is not None),
        devices=_devices(pools, gpus),
        closed=node.reasons,
        cores=min(cores, places * CORES_PER_GPU),
        memory_gib=min(memory_gib, places * MEMORY_GIB_PER_GPU),
    )


def _devices(pools: list[GpuPool], gpus: list[Gpu]) -> tuple[Device, ...]:
    first = pools[0]
    if first.sharing is Sharing.HAMI:
        return tuple(_shared_device(gpu) for gpu in gpus)
    if first.sharing in {Sharing.TIME_SLICING, Sharing.MPS}:
        # Which device a share lies on is not told: nothing is certain to be whole once one share is taken.
        each = max(1, first.advertised // max(1, first.physical))
        untouched = first.requested == 0
        return tuple(Device(first.memory_mib, min(each, first.free), untouched) for _ in range(first.physical))
    return tuple(
        Device(pool.memory_mib, 1 if index < pool.free else 0, index < pool.free)
        for pool in pools
        for index in range(pool.advertised)
    )


def _shared_device(gpu: Gpu) -> Device:
    uses = gpu.used_by or ()
    return Device(
        free_mib=gpu.free_memory_mib or 0,
        free_shares=max(0, gpu.shares - len(uses)) if gpu.healthy else 0,
        untouched=gpu.healthy and not uses,
        free_cores=_ALL_CORES - sum(use.cores_percent or 0 for use in uses),
    )


def _major(version: str | None) -> int | None:
    head = (version or "").split(".")[0]
    return int(head) if head.isascii() and head.isdecimal() and len(head) < 6 else None
