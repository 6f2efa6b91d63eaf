"""Machines: the truth behind a node that the API does not show until some agent reports it."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from sandbox.kubernetes.simulation.hardware import NVIDIA, Accelerator
from sandbox.kubernetes.simulation.profiles import Profile


@dataclass
class Device:
    """One physical accelerator in a machine."""

    uuid: str
    index: int
    model: Accelerator
    numa: int
    bus: str
    lost: bool = False


@dataclass
class Machine:
    """One machine: devices, software on the host, images pulled, device slots handed to pods.

    `driver` is the NVIDIA driver that is loaded now, None when there is none. `assigned` maps a resource to the pod
    (uid) holding each of its slots; a slot is an integer whose device is `slot % len(devices)`.
    """

    name: str
    profile: Profile
    seed: int
    ip: str
    devices: list[Device]
    driver: str | None
    toolkit: bool
    images: set[str] = field(default_factory=set)
    assigned: dict[str, dict[int, str]] = field(default_factory=dict)
    down: bool = False

    @property
    def nvidia(self) -> bool:
        """Whether NVIDIA devices are plugged in, drivers or not."""
        return bool(self.devices) and self.devices[0].model.vendor == NVIDIA

    def healthy(self) -> list[Device]:
        """The devices that still answer."""
        return [device for device in self.devices if not device.lost]

    def assign(
        self, resource: str, pod: str, count: int, available: int, *, cards: tuple[str, ...] = ()
    ) -> list[int] | None:
        """Hand `count` of `available` slots to a pod; None when too few are free (nothing is handed out then).

        `cards` are the UUIDs that a scheduler already chose; without them any healthy device will do.
        """
        slots = self.assigned.setdefault(resource, {})
        usable = [
            slot for slot in range(available + len(self.devices))
            if slot not in slots and not (self.devices and self.devices[slot % len(self.devices)].lost)
        ]  # fmt: skip
        if cards:
            usable = [slot for slot in usable if self.devices[slot % len(self.devices)].uuid in cards]
            by_card = {slot % len(self.devices): slot for slot in reversed(usable)}
            usable = sorted(by_card.values())
        if len(slots) + count > available or len(usable) < count:
            return None
        for slot in usable[:count]:
            slots[slot] = pod
        return usable[:count]

    def release(self, pod: str) -> None:
        """Take back everything a pod holds."""
        for slots in self.assigned.values():
            for slot in [slot for slot, holder in slots.items() if holder == pod]:
                del slots[slot]

    def devices_of(self, pod: str) -> list[Device]:
        """The physical devices a pod holds, each once, in order of index."""
        indexes = {
            slot % len(self.devices)
            for resource, slots in self.assigned.items()
            if self.devices and resource.startswith(self.devices[0].model.resource.split("/")[0])
            for slot, holder in slots.items()
            if holder == pod
        }
        return [self.devices[index] for index in sorted(indexes)]


def make_machines(wanted: Iterable[tuple[Profile, int]], *, seed: int) -> list[Machine]:
    """Build machines named `<profile>-<n>`, n from 1; the same seed gives the same UUIDs and addresses."""
    machines: list[Machine] = []
    made: dict[str, int] = {}
    for profile, count in wanted:
        for _ in range(count):
            made[profile.name] = made.get(profile.name, 0) + 1
            machines.append(_machine(profile, made[profile.name], position=len(machines), seed=seed))
    return machines


def _machine(profile: Profile, number: int, *, position: int, seed: int) -> Machine:
    name = f"{profile.name}-{number}"
    chance = random.Random(f"{seed}/{name}")
    return Machine(
        name=name,
        profile=profile,
        seed=seed,
        ip=f"10.{position // 60_000}.{position // 250 % 240 + 1}.{position % 250 + 4}",
        devices=[_device(profile, index, chance) for index in range(profile.count)],
        driver=profile.driver,
        toolkit=profile.nvidia_runtime,
    )


def _device(profile: Profile, index: int, chance: random.Random) -> Device:
    if profile.accelerator is None:
        raise ValueError(f"profile {profile.name} counts devices but names none")
    identity = uuid.UUID(int=chance.getrandbits(128), version=4)
    return Device(
        uuid=f"GPU-{identity}",
        index=index,
        model=profile.accelerator,
        numa=index * profile.numa_nodes // max(profile.count, 1),
        bus=f"00000000:{0x10 + index * 8:02X}:00.0",
    )
