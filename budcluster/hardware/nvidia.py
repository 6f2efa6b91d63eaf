"""NVIDIA GPUs of a node, from the best witness there is.

In this order: HAMi's register annotation (each device, with health), GPU Feature Discovery's labels (k8s-device-plugin
0.20: the first device stands for all), the PCI devices that Node Feature Discovery counted, and the bare PCI label.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from budcluster.hardware.hami_annotations import RegisteredGpu, read_register
from budcluster.hardware.labels import Gaps, device_count, shown, text_label, whole_number
from budcluster.hardware.pods import PodRequest
from budcluster.hardware.profile import Gpu, GpuPool, GpuVendor, PodUse, Sharing

VENDOR_ID: Final = "10de"
RESOURCE: Final = "nvidia.com/gpu"
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
        pci_count: int | None,
        pods: list[PodRequest],
        usable: bool,
        gaps: Gaps,
    ) -> None:
        self._labels = labels
        self._allocatable = allocatable
        self._pci_count = pci_count
        self._pods = pods
        self._usable = usable
        self._gaps = gaps
        self._registered = read_register(annotations, gaps)
        product = text_label(labels, "nvidia.com/gpu.product", gaps)
        slice_of = _MIG_SUFFIX.search(product) if product else None
        self._slice_profile = slice_of["profile"] if slice_of else None
        self.model = _MIG_SUFFIX.sub("", product).removesuffix(_SHARED_SUFFIX) if product else None
        self._memory_mib = whole_number(labels, "nvidia.com/gpu.memory", gaps, at_most=_MAX_MEMORY_MIB)

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
        healthy = self._advertised() > 0 or self.sharing is Sharing.MIG
        memory = None if self._slice_profile else self._memory_mib
        return tuple(
            Gpu(index, GpuVendor.NVIDIA, self.model, memory, healthy=healthy, shares=self._replicas())
            for index in range(count)
        )

    def pools(self) -> tuple[GpuPool, ...]:
        """What pods can ask for, one row a resource name."""
        pools = [self._mig_pool(key) for key in self._allocatable if _MIG_RESOURCE.fullmatch(key)]
        devices = self.devices()
        if devices and (self._advertised() > 0 or not pools):
            requested = sum(pod.devices(RESOURCE) for pod in self._pods)
            advertised = self._advertised()
            free = max(0, advertised - requested)
            if self._registered:
                free = min(free, sum(_free_shares(device) for device in devices))
            pools.insert(0, self._pool(RESOURCE, len(devices), advertised, requested, free, self._pool_memory()))
        return tuple(pools)

    def _pool(
        self, resource: str, physical: int, advertised: int, requested: int, free: int, memory_mib: int | None
    ) -> GpuPool:
        return GpuPool(
            resource=resource,
            vendor=GpuVendor.NVIDIA,
            model=self._pool_model(),
            sharing=self.sharing,
            memory_mib=memory_mib,
            physical=physical,
            advertised=advertised,
            requested=requested,
            free=free if self._usable else 0,
            compute_capability=self._compute_capability(),
        )

    def _compute_capability(self) -> tuple[int, int] | None:
        major = whole_number(self._labels, "nvidia.com/gpu.compute.major", self._gaps)
        minor = whole_number(self._labels, "nvidia.com/gpu.compute.minor", self._gaps)
        return None if major is None or minor is None else (major, minor)

    def _mig_pool(self, resource: str) -> GpuPool:
        advertised = device_count(self._allocatable, resource, self._gaps)
        requested = sum(pod.devices(resource) for pod in self._pods)
        memory = whole_number(self._labels, f"{resource}.memory", self._gaps, at_most=_MAX_MEMORY_MIB)
        free = max(0, advertised - requested)
        return self._pool(resource, self._physical(), advertised, requested, free, memory)

    def _pool_model(self) -> str | None:
        return self._registered[0].product if self._registered else self.model

    def _pool_memory(self) -> int | None:
        return self._registered[0].memory_mib if self._registered else self._memory_mib

    def _advertised(self) -> int:
        resources = (RESOURCE, "nvidia.com/gpu.shared")
        return sum(device_count(self._allocatable, name, self._gaps) for name in resources if name in self._allocatable)

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
