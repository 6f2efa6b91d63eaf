"""Where a replica could stand: the GPUs of each node as whole devices or shares, with what is free now."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from budcluster.hardware.profile import Gpu, GpuPool, GpuVendor, NodeProfile, Sharing


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU or MIG slice that may be given to a replica."""

    free_mib: int | None
    """Memory still unclaimed; None where nobody knows the size."""
    free_shares: int
    untouched: bool
    """Whether no pod holds any of it."""


@dataclass(frozen=True, slots=True)
class Room:
    """The devices of one node that are asked for by one resource name."""

    node: str
    pool: str
    """What people call this kind of node: its instance type, or the GPU's model."""
    vendor: GpuVendor
    model: str | None
    """None where it is not known, or is not one."""
    resource: str
    sharing: Sharing
    memory_mib: int | None
    """Of the smallest device."""
    driver_major: int | None
    compute_capability: tuple[int, int] | None
    devices: tuple[Device, ...]
    closed: tuple[str, ...]
    """Why the node takes no pods; empty on a usable one."""

    @property
    def whole_devices(self) -> int:
        """Devices that one replica could have for itself."""
        return 0 if self.closed else sum(device.untouched and device.free_shares > 0 for device in self.devices)

    def fitting(self, count: int, *, share_mib: int | None) -> tuple[int, ...] | None:
        """Indexes of `count` devices for one replica: whole ones, or shares of the tightest that have the memory."""
        if self.closed:
            return None
        usable = [
            (device.free_mib or 0, index)
            for index, device in enumerate(self.devices)
            if device.free_shares > 0
            and (device.untouched if share_mib is None else (device.free_mib or 0) >= share_mib)
        ]
        usable.sort()
        return tuple(index for _, index in usable[:count]) if len(usable) >= count else None

    def taking(self, indexes: Iterable[int], *, share_mib: int | None) -> "Room":
        """The room after a replica has moved in."""
        devices = list(self.devices)
        for index in indexes:
            device = devices[index]
            whole = share_mib is None
            devices[index] = Device(
                free_mib=0 if whole else (device.free_mib or 0) - (share_mib or 0),
                free_shares=0 if whole else device.free_shares - 1,
                untouched=False,
            )
        return replace(self, devices=tuple(devices))


def rooms_of(nodes: Iterable[NodeProfile]) -> list[Room]:
    """Every room of a cluster, usable or not."""
    return [_room(node, pools) for node in nodes for pools in _by_resource(node.pools)]


def _by_resource(pools: Iterable[GpuPool]) -> list[list[GpuPool]]:
    found: dict[str, list[GpuPool]] = defaultdict(list)
    for pool in pools:
        found[pool.resource].append(pool)
    return list(found.values())


def _room(node: NodeProfile, pools: list[GpuPool]) -> Room:
    """Where one name asks for several kinds of devices a pod may get any: what all of them have is what is certain."""
    first = pools[0]
    memories = [pool.memory_mib for pool in pools if pool.memory_mib is not None]
    capabilities = [pool.compute_capability for pool in pools if pool.compute_capability is not None]
    return Room(
        node=node.name,
        pool=node.instance_type or first.model or first.resource,
        vendor=first.vendor,
        model=first.model if len(pools) == 1 else None,
        resource=first.resource,
        sharing=first.sharing,
        memory_mib=min(memories) if len(memories) == len(pools) else None,
        driver_major=_major(node.driver),
        compute_capability=min(capabilities) if len(capabilities) == len(pools) else None,
        devices=tuple(device for pool in pools for device in _devices(pool, [g for g in node.gpus if pool.holds(g)])),
        closed=node.reasons,
    )


def _devices(pool: GpuPool, gpus: list[Gpu]) -> tuple[Device, ...]:
    if pool.sharing is Sharing.HAMI:
        return tuple(
            Device(
                free_mib=gpu.free_memory_mib or 0,
                free_shares=max(0, gpu.shares - len(gpu.used_by or ())) if gpu.healthy else 0,
                untouched=gpu.healthy and not gpu.used_by,
            )
            for gpu in gpus
        )
    if pool.sharing in {Sharing.TIME_SLICING, Sharing.MPS}:
        # Which device a share lies on is not told: nothing is certain to be whole once one share is taken.
        each = max(1, pool.advertised // max(1, pool.physical))
        untouched = pool.requested == 0
        return tuple(Device(pool.memory_mib, min(each, pool.free), untouched) for _ in range(pool.physical))
    return tuple(
        Device(pool.memory_mib, 1 if index < pool.free else 0, index < pool.free) for index in range(pool.advertised)
    )


def _major(version: str | None) -> int | None:
    head = (version or "").split(".")[0]
    return int(head) if head.isascii() and head.isdecimal() and len(head) < 6 else None
