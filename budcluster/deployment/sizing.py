"""How much GPU memory one replica needs, device by device, and which context is the largest that fits.

Per device: weights / (TP x PP), plus the key-value cache, plus what the engine takes for itself, must stay below the
share of memory that the engine may use (vLLM 0.33 takes 0.92 by default). The overhead is an allowance, no measurement:
CUDA context and graphs, activations of one batch, and communication buffers where several devices work together.
"""

import math
from dataclasses import dataclass
from typing import Final

from budcluster.deployment.model_facts import ModelFacts

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
UTILIZATION: Final = 0.92
_CONTEXT_BYTES: Final = 1.2 * GIB
_GROUP_BYTES: Final = 0.6 * GIB
_BATCH_TOKENS: Final = 8192
_ACTIVATION_COPIES: Final = 6
_KV_BYTES: Final = {"auto": 2.0, "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0}


def max_model_length(input_tokens: int, output_tokens: int) -> int:
    """The context that a deployment is sized for: a tenth more than asked, rounded up, in whole numbers."""
    return -(-(input_tokens + output_tokens) * 11 // 10)


@dataclass(frozen=True, slots=True)
class Shape:
    """How one replica is spread and what it must hold."""

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_model_len: int = 4096
    quantization: str | None = None
    kv_cache_dtype: str = "auto"

    @property
    def devices(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes that each device of a replica needs."""

    weights: int
    kv_cache: int
    """For one sequence of the full length: the least that an engine starts with."""
    overhead: int
    kv_per_token: int

    @property
    def total(self) -> int:
        """The least memory that the engine must be given on each device."""
        return self.weights + self.kv_cache + self.overhead

    def needed_mib(self, utilization: float = UTILIZATION) -> int:
        """The smallest device that holds it."""
        return math.ceil(self.total / utilization / MIB)

    def fits(self, memory_mib: int, utilization: float = UTILIZATION) -> bool:
        """Whether a device of this size holds it."""
        return self.total <= memory_mib * MIB * utilization

    def largest_context(self, memory_mib: int, utilization: float = UTILIZATION) -> int:
        """Tokens of the longest sequence that a device of this size can hold; 0 when the weights alone do not fit."""
        room = memory_mib * MIB * utilization - self.weights - self.overhead
        return max(0, int(room // self.kv_per_token)) if self.kv_per_token else 0

    def concurrency(self, memory_mib: int, max_model_len: int, utilization: float = UTILIZATION) -> float:
        """How many sequences of full length run at once."""
        return self.largest_context(memory_mib, utilization) / max_model_len


def estimate(facts: ModelFacts, shape: Shape) -> Estimate:
    """Size one replica. Pure arithmetic over the model's shape."""
    per_token = kv_bytes_per_token(facts, shape)
    overhead = _CONTEXT_BYTES + _ACTIVATION_COPIES * _BATCH_TOKENS * facts.hidden_size * 2 / shape.tensor_parallel
    if shape.devices > 1:
        overhead += _GROUP_BYTES
    return Estimate(
        weights=math.ceil(facts.loaded_bytes(shape.quantization) / shape.devices),
        kv_cache=per_token * shape.max_model_len,
        overhead=int(overhead),
        kv_per_token=per_token,
    )


def kv_bytes_per_token(facts: ModelFacts, shape: Shape) -> int:
    """Bytes of key-value cache that one token takes on one device.

    Grouped heads are split over tensor parallel ranks and repeated where there are fewer heads than ranks; the
    compressed cache of latent attention is whole on every rank.
    """
    layers = math.ceil(facts.layers / shape.pipeline_parallel)
    width = _KV_BYTES.get(shape.kv_cache_dtype, 2.0)
    if facts.mla_rank is not None:
        return math.ceil(layers * facts.mla_rank * width)
    heads = max(1, math.ceil(facts.kv_heads / shape.tensor_parallel))
    return math.ceil(2 * layers * heads * facts.head_dim * width)
