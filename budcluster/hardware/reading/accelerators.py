"""AMD, Intel and Habana devices of a node, from their plugins' resources and labels.

Sources: ROCm k8s-device-plugin and gpu-operator 1.5.1, intel-device-plugins-for-kubernetes 0.36, Gaudi operator 1.23.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from budcluster.hardware.reading.labels import Gaps, device_count, text_label, whole_number
from budcluster.hardware.reading.pods import PodRequest, holders
from budcluster.hardware.reading.profile import Gpu, GpuPool, GpuVendor, Sharing

_VRAM: Final = re.compile(r"(?P<size>[0-9]{1,5})G", re.ASCII)
# PCI device ids of Habana's processing accelerators, and the memory of one in MiB.
_GAUDI: Final = {"1020": ("Gaudi2", 96 * 1024), "1060": ("Gaudi3", 128 * 1024)}


@dataclass(frozen=True, slots=True)
class _Kind:
    vendor: GpuVendor
    vendor_id: str
    resources: tuple[str, ...]
    count_label: str = ""
    """How many devices there are, where a plugin that shares them offers more."""


_KINDS: Final = (
    _Kind(GpuVendor.AMD, "1002", ("amd.com/gpu",)),
    _Kind(GpuVendor.HABANA, "1da3", ("habana.ai/gaudi",)),
    _Kind(GpuVendor.INTEL, "8086", ("gpu.intel.com/i915", "gpu.intel.com/xe"), "gpu.intel.com/device.count"),
)


def read_others(
    labels: Mapping[str, Any],
    allocatable: Mapping[str, Any],
    *,
    pci_devices: Mapping[str, list[str]],
    present: set[str],
    pods: list[PodRequest],
    usable: bool,
    gaps: Gaps,
) -> tuple[tuple[Gpu, ...], tuple[GpuPool, ...]]:
    """Devices and pools of every vendor but NVIDIA. `pci_devices` are device ids by PCI vendor id."""
    devices: list[Gpu] = []
    pools: list[GpuPool] = []
    for kind in _KINDS:
        offers = {name: device_count(allocatable, name, gaps) for name in kind.resources}
        resource, advertised = max(offers.items(), key=lambda offer: offer[1])
        found = pci_devices.get(kind.vendor_id, [])
        labelled = whole_number(labels, kind.count_label, gaps)
        count = labelled or advertised or (len(found) if kind.vendor is not GpuVendor.INTEL else 0)
        if not count:
            if kind.vendor_id in present and kind.vendor is not GpuVendor.INTEL:
                gaps.add(f"a device of {kind.vendor} is there, but no plugin offers it to pods")
            continue
        model, memory = _model_of(kind.vendor, labels, found, gaps)
        shares = max(1, advertised // count)
        devices += [
            Gpu(len(devices) + index, kind.vendor, model, memory, healthy=index < advertised, shares=shares)
            for index in range(count)
        ]
        uses = holders(pods, resource)
        requested = sum(use.count for use in uses)
        pools.append(
            GpuPool(
                resource=resource,
                vendor=kind.vendor,
                model=model,
                sharing=Sharing.TIME_SLICING if shares > 1 else Sharing.NONE,
                memory_mib=memory,
                physical=count,
                advertised=advertised,
                requested=requested,
                free=max(0, advertised - requested) if usable else 0,
                used_by=uses,
            )
        )
    return tuple(devices), tuple(pools)


def _model_of(
    vendor: GpuVendor, labels: Mapping[str, Any], found: list[str], gaps: Gaps
) -> tuple[str | None, int | None]:
    match vendor:
        case GpuVendor.AMD:
            vram = _VRAM.fullmatch(str(labels.get("amd.com/gpu.vram", "")))
            return text_label(labels, "amd.com/gpu.product-name", gaps), int(vram["size"]) * 1024 if vram else None
        case GpuVendor.HABANA:
            known = _GAUDI.get(found[0]) if found else None
            if known is None:
                gaps.add("which Gaudi generation this is was not found among the PCI devices")
            return known or (None, None)
        case _:
            return text_label(labels, "gpu.intel.com/product", gaps), None
