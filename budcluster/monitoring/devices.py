"""GPUs one by one, as NVIDIA's DCGM exporter 4 measures them and Prometheus has scraped them. Pure.

It is the only witness of the device that a pod got where HAMi does not hand them out, and of each device's own model
where a node has several.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from budcluster.hardware.reading.hami_annotations import product_name

_WHICH: Final = "UUID, gpu, modelName, Hostname, hostname, exported_namespace, exported_pod"
# A MIG device has one series a slice; two scrapers of one exporter would show everything twice.
QUERIES: Final[Mapping[str, str]] = {
    "utilization_percent": f"max by ({_WHICH}) (DCGM_FI_DEV_GPU_UTIL)",
    "memory_used_mib": "sum by (UUID) (max by (UUID, GPU_I_ID) (DCGM_FI_DEV_FB_USED))",
    "memory_free_mib": "sum by (UUID) (max by (UUID, GPU_I_ID) (DCGM_FI_DEV_FB_FREE))",
    "last_xid": "max by (UUID) (DCGM_FI_DEV_XID_ERRORS)",
}

Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class MeasuredGpu:
    """One device. None where nobody tells."""

    node: str
    index: int | None
    uuid: str
    model: str | None
    """Spelled as in the hardware profile."""
    utilization_percent: float
    memory_used_mib: float | None
    memory_free_mib: float | None
    last_xid: int | None
    """Number of the last error that the driver told of; 0 for none. NVIDIA's list of XID errors says what it means."""
    pods: tuple[str, ...]
    """Namespace and name of those that run on it. Time-slicing hides them."""


def read_devices(samples: Mapping[str, Iterable[Sample]]) -> tuple[MeasuredGpu, ...]:
    """The devices behind the samples of each of QUERIES, by node and place there."""
    used, free, xid = (
        {labels.get("UUID", ""): value for labels, value in samples.get(name, ())}
        for name in ("memory_used_mib", "memory_free_mib", "last_xid")
    )
    found: dict[str, MeasuredGpu] = {}
    for labels, value in samples.get("utilization_percent", ()):
        uuid = labels.get("UUID", "")
        if not uuid:
            continue
        before = found.get(uuid)
        found[uuid] = MeasuredGpu(
            # The exporter renamed the label after 4.5.3.
            node=labels.get("hostname") or labels.get("Hostname") or "",
            index=_index(labels.get("gpu", "")),
            uuid=uuid,
            model=product_name(labels["modelName"]) if labels.get("modelName") else None,
            utilization_percent=max(value, before.utilization_percent if before else 0),
            memory_used_mib=used.get(uuid),
            memory_free_mib=free.get(uuid),
            last_xid=int(xid[uuid]) if uuid in xid else None,
            pods=(*(before.pods if before else ()), *_pod(labels)),
        )
    return tuple(sorted(found.values(), key=lambda gpu: (gpu.node, gpu.index or 0, gpu.uuid)))


def _pod(labels: Mapping[str, Any]) -> tuple[str, ...]:
    pod = labels.get("exported_pod")
    return (f"{labels.get('exported_namespace', '')}/{pod}",) if pod else ()


def _index(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 4 else None
