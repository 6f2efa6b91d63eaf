"""Node profiles: what `--nodes h100x8:2,l40s:4` may name, and how that text is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sandbox.kubernetes.simulation import hardware
from sandbox.kubernetes.simulation.hardware import Accelerator, Processor

MOST_NODES = 20_000


class UnknownProfile(ValueError):
    """The text of `--nodes` names no profile, or is no list of `profile:count`."""


@dataclass(frozen=True)
class Profile:
    """One kind of node. Memory in GiB; `driver` is the NVIDIA driver baked into the machine image, None when the
    GPU operator has to bring it; `nvidia_runtime` says that the container toolkit is baked in and is the default
    container runtime; `replicas` is a time-slicing factor configured on the host.
    """

    name: str
    cpu: Processor
    cpus: int
    memory_gib: int
    instance_type: str
    accelerator: Accelerator | None = None
    count: int = 0
    provider: str = "metal"
    driver: str | None = None
    nvidia_runtime: bool = False
    partitioned: bool = False
    replicas: int = 1
    numa_nodes: int = 1
    nics: tuple[tuple[str, str], ...] = (("1d0f", "ec20"),)
    taints: tuple[tuple[str, str, str], ...] = ()
    extra_capacity: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


_MELLANOX = (("15b3", "1021"),)
_EFA = (("1d0f", "ec20"), ("1d0f", "efa2"))
_GPU_TAINT = (("nvidia.com/gpu", "true", "NoSchedule"),)
_AMI_DRIVER = "580.95.05"
_AMD_LABELS = {
    "amd.com/gpu.cu-count": "304",
    "amd.com/gpu.device-id": "74a1",
    "amd.com/gpu.family": "AI",
    "amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM",
    "amd.com/gpu.simd-count": "1216",
    "amd.com/gpu.vram": "192G",
    "beta.amd.com/gpu.family.AI": "8",
}


def _aws(name: str, gpu: Accelerator, count: int, cpus: int, memory: int, instance: str, **more: object) -> Profile:
    return Profile(
        name=name, cpu=hardware.CASCADE_LAKE, cpus=cpus, memory_gib=memory, instance_type=instance, accelerator=gpu,
        count=count, provider="aws", driver=_AMI_DRIVER, nvidia_runtime=True, **more,  # type: ignore[arg-type] # checked by the dataclass
    )  # fmt: skip


def _metal(name: str, gpu: Accelerator, count: int, cpu: Processor, cpus: int, memory: int, **more: object) -> Profile:
    return Profile(
        name=name, cpu=cpu, cpus=cpus, memory_gib=memory, instance_type="bare-metal", accelerator=gpu, count=count,
        numa_nodes=2, nics=_MELLANOX, **more,  # type: ignore[arg-type] # checked by the dataclass
    )  # fmt: skip


_ALL = (
    _metal("h100x8", hardware.H100, 8, hardware.SAPPHIRE_RAPIDS, 224, 2015),
    _metal("h200x8", hardware.H200, 8, hardware.SAPPHIRE_RAPIDS, 224, 2015),
    _metal("b200x8", hardware.B200, 8, hardware.SAPPHIRE_RAPIDS, 224, 2015),
    _metal("l40s", hardware.L40S, 1, hardware.GENOA, 32, 251),
    _aws("a100x8", hardware.A100, 8, 96, 1121, "p4de.24xlarge", nics=_EFA, numa_nodes=2, taints=_GPU_TAINT),
    _aws("a100x8-mig", hardware.A100, 8, 96, 1121, "p4de.24xlarge", nics=_EFA, numa_nodes=2, taints=_GPU_TAINT,
         partitioned=True),
    _aws("l4", hardware.L4, 1, 8, 31, "g6.2xlarge"),
    _aws("l4-old-driver", hardware.L4, 1, 8, 31, "g6.2xlarge"),
    _aws("a10g", hardware.A10G, 1, 8, 31, "g5.2xlarge"),
    _aws("t4", hardware.T4, 1, 8, 31, "g4dn.2xlarge"),
    _aws("t4-timesliced", hardware.T4, 1, 8, 31, "g4dn.2xlarge", replicas=4),
    _metal("mi300x", hardware.MI300X, 8, hardware.GENOA, 192, 2267, labels=_AMD_LABELS),
    _metal("gaudi3", hardware.GAUDI3, 8, hardware.SAPPHIRE_RAPIDS, 192, 1007,
           extra_capacity={"hugepages-2Mi": "442Mi"}),
    Profile("cpu-amx", hardware.SAPPHIRE_RAPIDS, 64, 251, "m7i.16xlarge", provider="aws"),
    Profile("cpu-amd", hardware.GENOA, 64, 251, "m7a.16xlarge", provider="aws"),
    Profile("cpu", hardware.CASCADE_LAKE, 8, 31, "m5.2xlarge", provider="aws"),
)  # fmt: skip

PROFILES: dict[str, Profile] = {profile.name: profile for profile in _ALL}
PROFILES["l4-old-driver"] = Profile(**{**vars(PROFILES["l4-old-driver"]), "driver": "550.163.01"})


def parse_nodes(text: str) -> list[tuple[Profile, int]]:
    """Read `profile[:count],…`; the count is 1 when left out. Raises UnknownProfile with what would be accepted."""
    wanted: list[tuple[Profile, int]] = []
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        name, _, count = part.partition(":")
        if name not in PROFILES:
            raise UnknownProfile(f"no node profile is called {name!r}; known ones: {', '.join(sorted(PROFILES))}")
        if count and not re.fullmatch(r"[0-9]{1,5}", count):
            raise UnknownProfile(f"{part!r}: the count after ':' must be a whole number, as in {name}:2")
        wanted.append((PROFILES[name], int(count or "1")))
    nodes = sum(count for _, count in wanted)
    if nodes > MOST_NODES:
        raise UnknownProfile(f"{nodes} nodes asked for; at most {MOST_NODES} can be simulated")
    return wanted
