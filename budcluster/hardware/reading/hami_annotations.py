"""What HAMi writes on nodes and pods (HAMi 2.10; both forms of the register annotation, the older one up to 2.7.1).

In the JSON form Go's `omitempty` drops every zero value: an absent `health` means unhealthy, an absent index means 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from budcluster.hardware.reading.labels import Gaps, shown

REGISTER: Final = "hami.io/node-nvidia-register"
CORDON: Final = "hami.io/device-cordon"
ALLOCATED: Final = "hami.io/vgpu-devices-allocated"
MAX_ANNOTATION_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class RegisteredGpu:
    """One device of a node as HAMi offers it."""

    uuid: str
    index: int
    shares: int
    memory_mib: int
    """Already multiplied by HAMi's memory scaling."""
    product: str
    healthy: bool
    mode: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one container got of one device."""

    uuid: str
    memory_mib: int
    cores_percent: int


def read_register(annotations: Mapping[str, Any], gaps: Gaps) -> tuple[RegisteredGpu, ...] | None:
    """The devices of a node, in index order; None when HAMi has not registered any."""
    text = annotations.get(REGISTER)
    if not isinstance(text, str) or not text.strip():
        return None
    if len(text) > MAX_ANNOTATION_BYTES:
        gaps.add(f"annotation {REGISTER} is too large to be HAMi's; it was ignored")
        return None
    try:
        devices = _from_json(text) if text.lstrip().startswith("[") else _from_legacy(text)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        gaps.add(f"annotation {REGISTER} is {shown(text)}, which is not HAMi's format; it was ignored")
        return None
    cordoned = {uuid.strip() for uuid in str(annotations.get(CORDON, "")).split(",")}
    usable = [_cordon(device) if device.uuid in cordoned else device for device in devices]
    return tuple(sorted(usable, key=lambda device: device.index)) or None


def _cordon(device: RegisteredGpu) -> RegisteredGpu:
    return RegisteredGpu(
        device.uuid, device.index, device.shares, device.memory_mib, device.product, healthy=False, mode=device.mode
    )


def _from_json(text: str) -> list[RegisteredGpu]:
    return [
        RegisteredGpu(
            uuid=_uuid(entry["id"]),
            index=_count(entry.get("index", 0)),
            shares=_count(entry.get("count", 0)),
            memory_mib=_count(entry.get("devmem", 0)),
            product=product_name(str(entry.get("type", ""))),
            healthy=entry.get("health", False) is True,
            mode=str(entry.get("mode", "hami-core")),
        )
        for entry in orjson.loads(text)
    ]


def _from_legacy(text: str) -> list[RegisteredGpu]:
    devices = []
    for position, record in enumerate(part for part in text.split(":") if part.strip()):
        fields = record.split(",")
        if len(fields) not in {7, 9}:
            raise ValueError(record)
        devices.append(
            RegisteredGpu(
                uuid=_uuid(fields[0]),
                shares=_count(fields[1]),
                memory_mib=_count(fields[2]),
                product=product_name(fields[4]),
                healthy=fields[6].strip().lower() == "true",
                index=_count(fields[7]) if len(fields) == 9 else position,
                mode=fields[8] if len(fields) == 9 else "hami-core",
            )
        )
    return devices


def product_name(type_name: str) -> str:
    """HAMi's type (`NVIDIA A100-SXM4-80GB`, or prefixed `NVIDIA-NVIDIA A100…`) as GPU Feature Discovery spells it."""
    name = type_name.strip().replace(" ", "-")
    return name.removeprefix("NVIDIA-") if name.startswith(("NVIDIA-NVIDIA-", "NVIDIA-Tesla-")) else name


def read_allocations(annotations: Mapping[str, Any]) -> tuple[Allocation, ...]:
    """Devices that a pod holds, container by container; nothing where the annotation is absent or not HAMi's."""
    text = annotations.get(ALLOCATED)
    if not isinstance(text, str) or len(text) > MAX_ANNOTATION_BYTES:
        return ()
    allocations = []
    for record in text.replace(";", ":").split(":"):
        fields = record.split(",")
        if len(fields) < 4:
            continue
        try:
            allocations.append(Allocation(_uuid(fields[0]), _count(fields[2]), _count(fields[3])))
        except ValueError:
            continue
    return tuple(allocations)


def _uuid(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 128:
        raise ValueError(value)
    return value


def _count(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or not 0 <= number <= 10_000_000:
        raise ValueError(value)
    return number
