"""How much memory one replica needs, device by device, and which context is the largest that fits.

Per device: weights / (TP x PP), plus the key-value cache, plus what the engine takes for itself, must stay below the
share of memory that the engine may use (vLLM 0.33 takes 0.92 by default). The overhead is an allowance, no measurement:
CUDA context and graphs, activations of one batch or what choosing the next tokens takes, whichever is more, and
communication buffers where several devices work together. Nothing is counted for adapters, for speculative decoding and
for what else extra arguments may ask for: these leave in doubt whether it fits.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from budcluster.deployment.fitting.model_facts import ModelFacts

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
CORES_PER_GPU: Final = 2
MEMORY_GIB_PER_GPU: Final = 8
"""What a replica's pod asks of its node for each of its GPUs: the smallest machines with one have 4 and 15."""
CORES_WITHOUT_GPU: Final = 8
CPU_KV_GIB: Final = 8
"""Key-value cache of each process of a replica without GPUs."""
_CPU_SLACK: Final = 1.2
_CONTEXT_BYTES: Final = 1.2 * GIB
_GROUP_BYTES: Final = 0.6 * GIB
_BATCH_TOKENS: Final = 8192
_ACTIVATION_COPIES: Final = 6
_SAMPLING_BYTES: Final = 24
"""Of each word, for each sequence: logits and probabilities in float32, the same sorted, and the places they had."""
_ALIKE: Final = 1.5
_BLOCK_TOKENS: Final = 128
"""Of the largest block in which a cache is handed out: a window rarely begins with one."""
_KV_BYTES: Final = {"fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0}


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
    dtype: str = "auto"
    sequences: int | None = None
    """Served at once; None: as many as the engine thinks fit."""

    @property
    def bytes_per_number(self) -> int:
        """Of what is computed; `auto` computes in two bytes, whatever the weights are stored in."""
        return 4 if self.dtype in {"float", "float32"} else 2

    @property
    def devices(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(frozen=True, slots=True)
class Budget:
    """How an engine may use a device's memory. At most one of `static` and `of_the_rest` is set."""

    utilization: float = 0.92
    """For everything together."""
    static: float | None = None
    """For weights and cache together; the rest must hold what the engine takes for itself."""
    of_the_rest: float | None = None
    """For the cache, of what the weights and the engine itself leave."""
    batch_tokens: int = _BATCH_TOKENS
    """Computed at once; 0: a whole context."""
    slides: bool = False
    """Whether layers with a sliding window keep the window only, and what is computed at once."""


@dataclass(frozen=True, slots=True)
class KvShape:
    """What sequences take of one device."""

    per_token: int
    """Bytes in the layers that keep all of it."""
    per_sliding_token: int = 0
    """Bytes in those that keep no more than `kept`."""
    kept: int = 0

    def size(self, tokens: int) -> int:
        """Bytes of one sequence."""
        return self.per_token * tokens + self.per_sliding_token * min(tokens, self.kept)

    def longest(self, room: int) -> int:
        """Tokens of the longest sequence for which there is room."""
        if room < self.size(self.kept):
            return max(0, room // (self.per_token + self.per_sliding_token))
        return (room - self.per_sliding_token * self.kept) // max(1, self.per_token)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes that each device of a replica needs."""

    weights: int
    kv_cache: int
    """For one sequence of the full length: the least that an engine starts with."""
    overhead: int
    kv: KvShape
    budget: Budget

    @property
    def total(self) -> int:
        """The least memory that the engine must be given on each device."""
        return self.weights + self.kv_cache + self.overhead

    def needed_mib(self) -> int:
        """The smallest device that holds it."""
        if self.budget.static is not None:
            needed = max((self.weights + self.kv_cache) / self.budget.static, self.total)
        elif self.budget.of_the_rest is not None:
            needed = self.weights + self.overhead + self.kv_cache / self.budget.of_the_rest
        else:
            needed = self.total / self.budget.utilization
        return math.ceil(needed / MIB)

    def fits(self, memory_mib: int) -> bool:
        """Whether a device of this size holds it."""
        return self.needed_mib() <= memory_mib

    def largest_context(self, memory_mib: int) -> int:
        """Tokens of the longest sequence that a device of this size can hold; 0 when the weights alone do not fit."""
        memory = memory_mib * MIB
        rest = memory - self.weights - self.overhead
        if self.budget.static is not None:
            room = min(memory * self.budget.static - self.weights, rest)
        elif self.budget.of_the_rest is not None:
            room = rest * self.budget.of_the_rest
        else:
            room = memory * self.budget.utilization - self.weights - self.overhead
        return self.kv.longest(int(room))


def estimate(facts: ModelFacts, shape: Shape, budget: Budget = Budget()) -> Estimate:
    """Size one replica. Pure arithmetic over the model's shape."""
    tokens = budget.batch_tokens or max(shape.max_model_len, _BATCH_TOKENS)
    activations = _ACTIVATION_COPIES * tokens * facts.hidden_size * shape.bytes_per_number / shape.tensor_parallel
    sampling = (shape.sequences or 0) * facts.vocabulary * _SAMPLING_BYTES
    overhead = _CONTEXT_BYTES + max(activations, sampling)
    if shape.devices > 1:
        overhead += _GROUP_BYTES
    kv = kv_shape(facts, shape, budget)
    return Estimate(
        weights=math.ceil(facts.loaded_bytes(shape.quantization, dtype=shape.dtype) / shape.devices),
        kv_cache=kv.size(shape.max_model_len),
        overhead=int(overhead),
        kv=kv,
        budget=budget,
    )


def kv_shape(facts: ModelFacts, shape: Shape, budget: Budget) -> KvShape:
    """As the engine keeps it.

    vLLM gives a sliding layer its window less one, and the tokens that are computed at once (v1/kv_cache_interface.py).
    It keeps layers in groups of one size: as many as there are of the rarer kind, or of the other one where both are
    about as many (v1/core/kv_cache_utils.py). A group that is not full takes the same.
    """
    sliding, full = facts.sliding_layers, facts.layers - facts.sliding_layers
    if not budget.slides or not sliding:
        return KvShape(kv_bytes_per_token(facts, shape))
    group = sliding
    if full:
        group = max(full, sliding) if max(full, sliding) < _ALIKE * min(full, sliding) else min(full, sliding)
    full, sliding = (math.ceil(layers / group) * group for layers in (full, sliding))
    batch = budget.batch_tokens or shape.max_model_len
    return KvShape(
        kv_bytes_per_token(replace(facts, layers=full), shape) if full else 0,
        kv_bytes_per_token(replace(facts, layers=sliding), shape),
        facts.sliding_window - 1 + batch + _BLOCK_TOKENS,
    )


def kv_bytes_per_token(facts: ModelFacts, shape: Shape) -> int:
    """Bytes of key-value cache that one token takes on one device.

    Grouped heads are split over tensor parallel ranks and repeated where there are fewer heads than ranks; the
    compressed cache of latent attention is whole on every rank.
    """
    layers = math.ceil(facts.layers / shape.pipeline_parallel)
    width = _KV_BYTES.get(shape.kv_cache_dtype, float(shape.bytes_per_number))
    if facts.mla_rank is not None:
        return math.ceil(layers * facts.mla_rank * width)
    heads = max(1, math.ceil(facts.kv_heads / shape.tensor_parallel))
    return math.ceil(2 * layers * heads * facts.head_dim * width)


def misshapen(facts: ModelFacts, shape: Shape) -> tuple[str, ...]:
    """Why no cluster could run the model in this shape; empty when one could."""
    reasons = []
    tp, pp = shape.tensor_parallel, shape.pipeline_parallel
    if not divides(facts, tp):
        reasons.append(
            f"tensor_parallel_size {tp} does not divide the model's {facts.attention_heads} attention heads "
            f"and {facts.kv_heads} key-value heads evenly"
        )
    if pp > facts.layers:
        reasons.append(f"pipeline_parallel_size {pp} is more than the model's {facts.layers} layers")
    return tuple(reasons)


def divides(facts: ModelFacts, tensor_parallel: int) -> bool:
    """Whether the heads can be dealt out to so many ranks: evenly, or key-value heads repeated evenly."""
    if facts.attention_heads % tensor_parallel:
        return False
    if facts.mla_rank is not None:
        return True
    return max(facts.kv_heads, tensor_parallel) % min(facts.kv_heads, tensor_parallel) == 0


def memory_without_gpu_gib(loaded_bytes: int | None, processes: int) -> int:
    """What a replica's pod asks of its node when it computes on processors."""
    weights = math.ceil((16 * GIB if loaded_bytes is None else loaded_bytes) * _CPU_SLACK / GIB)
    return weights + CPU_KV_GIB * processes + MEMORY_GIB_PER_GPU
