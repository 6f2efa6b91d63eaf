"""The hardware profile: what the nodes of a cluster have, and the sum. Plain immutable values, no reading here.

Units are in the names: MiB for GPU memory (as GPU Feature Discovery and HAMi count), bytes for RAM, cores for CPU.
`None` means that nothing said so; it never stands for zero.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class GpuVendor(StrEnum):
    """Who made an accelerator."""

    NVIDIA = "NVIDIA"
    AMD = "AMD"
    INTEL = "INTEL"
    HABANA = "HABANA"


class Sharing(StrEnum):
    """How the GPUs of a node are handed to pods."""

    NONE = "none"
    TIME_SLICING = "time-slicing"
    MPS = "mps"
    MIG = "mig"
    HAMI = "hami"


@dataclass(frozen=True, slots=True)
class PodUse:
    """What one pod holds of a GPU."""

    namespace: str
    pod: str
    memory_mib: int | None = None
    cores_percent: int | None = None


@dataclass(frozen=True, slots=True)
class PoolUse:
    """How many of a node's devices or shares one pod holds, wherever they are."""

    namespace: str
    pod: str
    count: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One physical device."""

    index: int
    vendor: GpuVendor
    model: str | None
    """Product name as its vendor's discovery writes it, for example `NVIDIA-H100-80GB-HBM3`."""
    memory_mib: int | None
    healthy: bool
    uuid: str | None = None
    shares: int = 1
    """How many pods may hold it at once."""
    used_by: tuple[PodUse, ...] | None = None
    """None where the cluster does not tell which device a pod got (everything but HAMi)."""
    free_memory_mib: int | None = None


@dataclass(frozen=True, slots=True)
class GpuPool:
    """The GPUs of one kind on one node. HAMi hands several kinds out under one resource name; else a name is a kind."""

    resource: str
    """Extended resource, for example `nvidia.com/gpu`."""
    vendor: GpuVendor
    model: str | None
    sharing: Sharing
    memory_mib: int | None
    """Of one device, or of one MIG slice."""
    physical: int
    """Devices."""
    advertised: int
    """What pods can ask for: shares where devices are shared."""
    requested: int
    """What live pods hold."""
    free: int
    """What a new pod could get now: zero on a node that takes no pods."""
    compute_capability: tuple[int, int] | None = None
    """NVIDIA's, for example (9, 0); decides which number formats run."""
    used_by: tuple[PoolUse, ...] = ()
    """The pods behind `requested`."""

    def holds(self, gpu: Gpu) -> bool:
        """Whether this device of its node is one of its own."""
        is_kind = (self.vendor, self.model) == (gpu.vendor, gpu.model)
        return is_kind and (self.sharing is Sharing.MIG or self.memory_mib == gpu.memory_mib)


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processors of a node."""

    vendor: str | None
    family: int | None
    model: int | None
    generation: str | None
    """Marketing family where the numbers are known, for example `Sapphire Rapids`."""
    cores: float
    """As the node counts them: hardware threads."""
    allocatable_cores: float
    threads_per_core: int | None
    features: tuple[str, ...]
    """CPUID flags that inference cares for: AVX2, AVX512*, AMX*."""


@dataclass(frozen=True, slots=True)
class Network:
    """What Node Feature Discovery says of the network; None before it ran."""

    sriov: bool | None
    rdma: bool | None


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """One node."""

    name: str
    ready: bool
    schedulable: bool
    """Whether a pod that tolerates GPU taints could be placed there."""
    reasons: tuple[str, ...]
    """Why not, in words; empty on a usable node."""
    architecture: str
    os: str | None
    kernel: str | None
    kubelet: str | None
    instance_type: str | None
    zone: str | None
    cpu: Cpu
    memory_bytes: int
    allocatable_memory_bytes: int
    numa_nodes: int | None
    network: Network
    driver: str | None
    cuda: str | None
    gpus: tuple[Gpu, ...]
    pools: tuple[GpuPool, ...]
    gaps: tuple[str, ...]
    """What could not be learned, and why."""


@dataclass(frozen=True, slots=True)
class ModelSum:
    """All GPUs of one model in the cluster."""

    vendor: GpuVendor
    model: str | None
    memory_mib: int | None
    nodes: int
    physical: int
    healthy: int
    advertised: int
    free: int


@dataclass(frozen=True, slots=True)
class ClusterSum:
    """The cluster as a whole."""

    nodes: int
    nodes_ready: int
    cpu_cores: float
    memory_bytes: int
    gpus: int
    """Physical devices."""
    gpus_healthy: int
    by_model: tuple[ModelSum, ...]


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """Every node and the sum."""

    summary: ClusterSum
    nodes: tuple[NodeProfile, ...]
    gaps: tuple[str, ...] = field(default=())
