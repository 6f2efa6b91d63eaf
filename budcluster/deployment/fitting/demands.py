"""What a deployment asks of a cluster."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from budcluster.deployment.fitting.model_facts import ModelFacts
from budcluster.deployment.fitting.rooms import Share
from budcluster.deployment.fitting.sizing import Budget, Estimate, Shape, estimate
from budcluster.hardware.reading.profile import GpuVendor


@dataclass(frozen=True, slots=True)
class Demand:
    """GPUs."""

    shape: Shape
    replicas: int = 1
    facts: ModelFacts | None = None
    """None where the model's config is not known."""
    gpu_model: str | None = None
    share: Share | None = None
    vendors: frozenset[GpuVendor] = frozenset({GpuVendor.NVIDIA})
    """Whose devices the runtime's image runs on."""
    min_driver_major: int | None = None
    """NVIDIA driver that the image's CUDA needs."""
    budget: Budget = field(default_factory=Budget)
    """What the engine may use of a device's memory."""
    resource: str | None = None
    """The name by which its pods ask for devices; None while that is not decided."""
    doubts: tuple[str, ...] = ()
    """Why nobody knows whether it fits where it seems to, as sentences."""
    is_least: bool = True
    """Whether it needs what is counted in any case, however the doubts turn out."""

    def sized(self) -> Estimate | None:
        """Memory per device, where the model is known and is the whole of what counts."""
        return estimate(self.facts, self.shape, self.budget) if self.facts and self.is_least else None


@dataclass(frozen=True, slots=True)
class ProcessorDemand:
    """Processors and memory alone."""

    cores: int
    """Of one replica, as its pod asks."""
    memory_gib: int
    processes: int = 1
    """Parts that a replica is cut into, each bound to the memory next to some processors."""
    replicas: int = 1
    doubts: tuple[str, ...] = ()
    """Why nobody knows whether its memory is enough, as sentences."""
    architecture: str | None = None
    """That the image is built for; None where the caller's image may be for any."""
    needs_vectors: bool = False
    """Whether its kernels need AVX2 or AVX-512."""


AnyDemand = Demand | ProcessorDemand


def together(demands: Iterable[Demand]) -> list[Demand]:
    """The same demands, equal ones as one."""
    counts: dict[Demand, int] = {}
    for demand in demands:
        kind = replace(demand, replicas=1)
        counts[kind] = counts.get(kind, 0) + demand.replicas
    return [replace(kind, replicas=count) for kind, count in counts.items()]
