"""NVIDIA GPUs of a node, from the best witness there is.

In this order: HAMi's register annotation (each device, with health), GPU Feature Discovery's labels (k8s-device-plugin
0.20: the first device stands for all), the PCI devices that Node Feature Discovery counted, and the bare PCI label.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from budcluster.hardware.reading.hami_annotations import RegisteredGpu, read_register
from budcluster.hardware.reading.labels import Gaps, device_count, shown, text_label, whole_number
from budcluster.hardware.reading.pods import PodRequest, holders
from budcluster.hardware.reading.profile import Gpu, GpuPool, GpuVendor, PodUse, PoolUse, Sharing

VENDOR_ID: Final = "10de"
RESOURCE: Final = "nvidia.com/gpu"
_SHARED: Final = "nvidia.com/gpu.shared"
"""What the device plugin calls it where sharing renames."""
_MAX_MEMORY_MIB: Final = 4 * 1024 * 1024
_MIG_RESOURCE: Final = re.compile(r"nvidia\.com/mig-(?P<profile>[0-9]+g\.[0-9]+gb(?:\.[a-z.]+)?)", re.ASCII)
_MIG_SUFFIX: Final = re.compile(r"-MIG-(?P<profile>[0-9]+g\.[0-9]+gb[a-z.+]*)$", re.ASCII)
_SHARED_SUFFIX: Final = "-SHARED"


class NvidiaNode:
    """Reads the GPUs of one node. `devices` are the physical ones, `pools` what pods can ask for."""

    def __init__(
        self,
        labels: Mapping[str, Any],
        annotations: Mapping[str, Any],
        allocatable: Mapping[str, Any],
        *,
        pci_devices: list[str] | None,
        pods: list[PodRequest],
        usable: bool,
        gaps: Gaps,
    ) -> None:
        self._labels = labels
        self._allocatable = allocatable
        self._pci_count = None if pci_devices is None else len(pci_devices)
        self._pods = pods
        self._usable = usable
        self._gaps = gaps
        self._registered = read_register(annotations, gaps)
        product = text_label(labels, "nvidia.com/gpu.product", gaps)
        slice_of = _MIG_SUFFIX.search(product) if product else None
        self._slice_profile = slice_of["profile"] if slice_of else None
        self.model = _MIG_SUFFIX.sub("", product).removesuffix(_SHARED_SUFFIX) if product else None
        self._memory_mib = whole_number(labels, "nvidia.com/gpu.memory", gaps, at_most=_MAX_MEMORY_MIB)
        kinds = sorted(set(pci_devices or ()))
        if len(kinds) > 1 and not self._registered:
            gaps.add(
                f"devices of several kinds are there (PCI {', '.join(kinds[:8])}), and the labels describe the first "
                f"alone ({self.model}): which model a pod gets is not known"
            )
            self.model = self._memory_mib = None

    @property
    def sharing(self) -> Sharing:
        """How the devices are handed out."""
        if self._registered:
            return Sharing.HAMI
        if self._slice_profile or any(_MIG_RESOURCE.fullmatch(key) for key in self._allocatable):
            return Sharing.MIG
        strategy = self._labels.get("nvidia.com/gpu.sharing-strategy", "none")
        if strategy in {"none", ""}:
            return Sharing.NONE
        try:
            return Sharing(strategy)
        except ValueError:
            self._gaps.add(f"the sharing strategy {shown(strategy)} is not known; shares were counted as advertised")
            return Sharing.TIME_SLICING

    def devices(self) -> tuple[Gpu, ...]:
        """The physical devices."""
        return self._devices

    @cached_property
    def _devices(self) -> tuple[Gpu, ...]:
        if self._registered:
            return tuple(self._from_register(device) for device in self._registered)
        count = self._physical()
        working = self._working(count)
        memory = None if self._slice_profile else self._memory_mib
        return tuple(
            Gpu(index, GpuVendor.NVIDIA, self.model, memory, healthy=index < working, shares=self._replicas())
            for index in range(count)
        )

    def pools(self) -> tuple[GpuPool, ...]:
        """What pods can ask for, one row a resource name and kind of device."""
        slices = tuple(self._mig_pool(key) for key in self._allocatable if _MIG_RESOURCE.fullmatch(key))
        if slices and not self._advertised():
            return slices
        return (*(self._hami_pools() if self._registered else self._plugin_pools()), *slices)

    def _plugin_pools(self) -> Iterator[GpuPool]:
        shared = device_count(self._allocatable, _SHARED, self._gaps)
        plain = device_count(self._allocatable, RESOURCE, self._gaps)
        for resource, advertised in ((RESOURCE, plain), (_SHARED, shared)):
            if advertised or (resource == RESOURCE and not shared):
                yield self._pool(resource, len(self._devices), advertised, holders(self._pods, resource))

    def _hami_pools(self) -> Iterator[GpuPool]:
        """All kinds of a node's devices are asked for by one name; HAMi tells which ones a pod got."""
        kinds: dict[tuple[str | None, int | None], list[Gpu]] = defaultdict(list)
        for device in self._devices:
            kinds[device.model, device.memory_mib].append(device)
        left = self._advertised()
        # What was asked for and not told yet, or handed out while HAMi was away, may be of any kind: it is counted
        # once, and is free in none.
        untold = self._untold_uses()
        for number, ((model, memory_mib), devices) in enumerate(kinds.items()):
            told = self._told_uses({device.uuid for device in devices})
            offered = left if len(kinds) == 1 else min(left, sum(one.shares for one in devices if one.healthy))
            left -= offered
            free = offered - sum(use.count for use in told + untold)
            yield replace(
                self._pool(RESOURCE, len(devices), offered, told if number else told + untold),
                model=model,
                memory_mib=memory_mib,
                free=max(0, min(free, sum(_free_shares(device) for device in devices))),
                compute_capability=self._compute_capability() if len(kinds) == 1 or model == self.model else None,
            )

    def _told_uses(self, uuids: set[str | None]) -> tuple[PoolUse, ...]:
        """Who holds these devices."""
        return tuple(
            PoolUse(pod.namespace, pod.name, count)
            for pod in self._pods
            if (count := len(uuids & {one.uuid for one in pod.allocations}))
        )

    def _untold_uses(self) -> tuple[PoolUse, ...]:
        """Who asked for more devices than HAMi tells of."""
        known = {device.uuid for device in self._devices}
        return tuple(
            PoolUse(pod.namespace, pod.name, count)
            for pod in self._pods
            if (count := pod.devices(RESOURCE) - len(known & {one.uuid for one in pod.allocations})) > 0
        )

    def _pool(self, resource: str, physical: int, advertised: int, uses: tuple[PoolUse, ...]) -> GpuPool:
        requested = sum(use.count for use in uses)
        return GpuPool(
            resource=resource,
            vendor=GpuVendor.NVIDIA,
            model=self.model,
            sharing=self.sharing,
            memory_mib=self._memory_mib,
            physical=physical,
            advertised=advertised,
            requested=requested,
            free=max(0, advertised - requested) if self._usable else 0,
            compute_capability=self._compute_capability(),
            used_by=uses,
        )

    def _compute_capability(self) -> tuple[int, int] | None:
        major = whole_number(self._labels, "nvidia.com/gpu.compute.major", self._gaps)
        minor = whole_number(self._labels, "nvidia.com/gpu.compute.minor", self._gaps)
        return None if major is None or minor is None else (major, minor)

    def _mig_pool(self, resource: str) -> GpuPool:
        advertised = device_count(self._allocatable, resource, self._gaps)
        memory = whole_number(self._labels, f"{resource}.memory", self._gaps, at_most=_MAX_MEMORY_MIB)
        pool = self._pool(resource, len(self._devices), advertised, holders(self._pods, resource))
        return replace(pool, memory_mib=memory)

    def _working(self, count: int) -> int:
        """How many of the devices are offered to pods, whole or in shares."""
        if self.sharing is Sharing.MIG:
            return count
        working = min(count, math.ceil(self._advertised() / self._replicas()))
        if 0 < working < count:
            self._gaps.add(
                f"{count - working} of {count} devices are not offered to pods; which ones is not told, "
                "so the last ones were taken for them"
            )
        return working

    def _advertised(self) -> int:
        return sum(device_count(self._allocatable, name, self._gaps) for name in (RESOURCE, _SHARED))

    def _replicas(self) -> int:
        replicas = whole_number(self._labels, "nvidia.com/gpu.replicas", self._gaps)
        return max(1, replicas or 1)

    def _physical(self) -> int:
        labelled = whole_number(self._labels, "nvidia.com/gpu.count", self._gaps)
        if self._slice_profile is not None:
            if self._pci_count:
                return self._pci_count
            self._gaps.add("the labels count MIG slices, so the number of physical GPUs is a guess of one")
            return 1
        if labelled:
            return labelled
        if self._pci_count:
            self._gaps.add("GPU Feature Discovery has not labelled this node, so model and memory are not known")
            return self._pci_count
        advertised = self._advertised()
        if advertised:
            self._gaps.add("GPU Feature Discovery has not labelled this node; its GPUs were counted as advertised")
            return advertised
        self._gaps.add("an NVIDIA device is there, but how many and which is not known: no driver or plugin reports")
        return 1

    def _from_register(self, device: RegisteredGpu) -> Gpu:
        uses = tuple(
            PodUse(pod.namespace, pod.name, allocation.memory_mib, allocation.cores_percent)
            for pod in self._pods
            for allocation in pod.allocations
            if allocation.uuid == device.uuid
        )
        used = sum(use.memory_mib or 0 for use in uses)
        return Gpu(
            index=device.index,
            vendor=GpuVendor.NVIDIA,
            model=device.product,
            memory_mib=device.memory_mib,
            healthy=device.healthy,
            uuid=device.uuid,
            shares=device.shares,
            used_by=uses,
            free_memory_mib=max(0, device.memory_mib - used) if device.healthy and self._usable else 0,
        )


def _free_shares(device: Gpu) -> int:
    """Shares of a HAMi device that a new pod could get: none without memory, none where a pod took all cores."""
    uses = device.used_by or ()
    if not device.healthy or not device.free_memory_mib or sum(use.cores_percent or 0 for use in uses) >= 100:
        return 0
    return max(0, device.shares - len(uses))
