"""What must be known of a model to size it, from its `config.json` as model hubs serve it.

Field names are those of Hugging Face transformers 5; multimodal models keep the language model under `text_config`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

_MOST: Final[dict[str, int]] = {
    "num_hidden_layers": 2_000, "n_layer": 2_000, "first_k_dense_replace": 2_000,
    "num_attention_heads": 10_000, "n_head": 10_000, "num_key_value_heads": 10_000,
    "head_dim": 100_000, "kv_lora_rank": 100_000, "qk_rope_head_dim": 100_000,
    "n_routed_experts": 100_000, "num_local_experts": 100_000, "num_experts": 100_000, "n_shared_experts": 100_000,
}  # fmt: skip
"""Ten times and more of what any model has; what is beyond is a mistake, or meant to break the arithmetic."""
_MOST_OTHERWISE: Final = 100_000_000
_BYTES_PER_WEIGHT: Final[dict[str, float]] = {
    "float32": 4, "float16": 2, "bfloat16": 2, "half": 2, "float": 4,
    "fp8": 1, "fbgemm_fp8": 1, "modelopt": 1, "int8": 1, "experts_int8": 1, "w8a8": 1,
    "awq": 0.56, "awq_marlin": 0.56, "gptq": 0.56, "gptq_marlin": 0.56,
    "mxfp4": 0.56, "modelopt_fp4": 0.56, "nvfp4": 0.56,
}  # fmt: skip
"""Bytes a weight takes; four-bit formats carry scales, about one sixteenth of a byte more."""


class UnusableConfig(ValueError):
    """A config.json that lacks what sizing needs; the message names it."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The shape of one decoder model."""

    architecture: str | None
    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    intermediate_size: int
    dtype: str
    max_position: int | None
    quantization: str | None = None
    experts: int = 0
    expert_intermediate_size: int = 0
    shared_experts: int = 0
    dense_layers: int = 0
    """Layers without experts, in a model that has them."""
    mla_rank: int | None = None
    """Width of the compressed KV of multi-head latent attention, rotary part included; None for other attention."""
    tied_embeddings: bool = False
    weights_bytes: int | None = None
    """As the hub sums the weight files; estimated from the shape where it does not say."""
    sliding_layers: int = 0
    """Layers that look back no further than the window."""
    sliding_window: int = 0
    """Tokens; 0 where no layer slides."""
    has_more_parts: bool = False
    """Whether it has parts beside the decoder, as for pictures: their size is known only in that sum."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From its row, which a newer version may have written that knows more."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in document.items() if name in known})

    def document(self) -> dict[str, Any]:
        """For its row: what differs from the defaults, so that a version that knows less can read most of them."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default}

    def bytes_per_weight(self, quantization: str | None) -> float:
        """Of the weights as loaded; unknown formats count as two bytes, which errs on the safe side."""
        kind = quantization or self.quantization
        return _BYTES_PER_WEIGHT.get(kind or self.dtype, 2)

    def parameters(self) -> int:
        """An estimate from the shape: embeddings, attention, feed-forward or experts."""
        attention = self.hidden_size * self.head_dim * (2 * self.attention_heads + 2 * self.kv_heads)
        dense = 3 * self.hidden_size * self.intermediate_size
        experts = 3 * self.hidden_size * self.expert_intermediate_size * (self.experts + self.shared_experts)
        dense_layers = self.layers if not self.experts else min(self.dense_layers, self.layers)
        feed_forward = dense * dense_layers + experts * (self.layers - dense_layers)
        embeddings = self.vocabulary * self.hidden_size * (1 if self.tied_embeddings else 2)
        return embeddings + attention * self.layers + feed_forward

    def file_bytes(self) -> int:
        """Bytes of the weight files: what is downloaded and kept, in whatever form it is loaded."""
        return self.weights_bytes if self.weights_bytes is not None else self.loaded_bytes(None)

    def loaded_bytes(self, quantization: str | None, *, dtype: str = "auto") -> int:
        """Bytes of all weights in memory, over all devices; `dtype` is of those that are not quantized."""
        is_plain = quantization is None and self.quantization is None and dtype != "auto"
        width = _BYTES_PER_WEIGHT[dtype] if is_plain else self.bytes_per_weight(quantization)
        if self.weights_bytes is None or self._is_requantized(quantization):
            return int(self.parameters() * width)
        return int(self.weights_bytes * width / self.bytes_per_weight(None)) if is_plain else self.weights_bytes

    def is_sized(self, quantization: str | None) -> bool:
        """Whether all of its parts are counted in `loaded_bytes`."""
        return not self.has_more_parts or (self.weights_bytes is not None and not self._is_requantized(quantization))

    def _is_requantized(self, quantization: str | None) -> bool:
        return quantization is not None and quantization != self.quantization


def read_config(config: Mapping[str, Any], *, weights_bytes: int | None = None) -> ModelFacts:
    """Read a config.json. Raises UnusableConfig when a number that sizing needs is absent or absurd."""
    nested = config.get("text_config")
    text: Mapping[str, Any] = {**config, **nested} if isinstance(nested, Mapping) else config
    layers = _need(text, "num_hidden_layers", "n_layer")
    hidden = _need(text, "hidden_size", "n_embd")
    heads = _need(text, "num_attention_heads", "n_head")
    architectures = config.get("architectures")
    quantization = config.get("quantization_config")
    rank = _find(text, "kv_lora_rank")
    kinds, window = text.get("layer_types"), _find(text, "sliding_window") or 0
    is_told = isinstance(kinds, list) and len(kinds) == layers and window > 0 and not rank
    sliding = list(kinds or ()).count("sliding_attention") if is_told else 0
    return ModelFacts(
        architecture=str(architectures[0])[:100] if isinstance(architectures, list) and architectures else None,
        layers=layers,
        hidden_size=hidden,
        attention_heads=heads,
        kv_heads=_find(text, "num_key_value_heads") or heads,
        head_dim=_find(text, "head_dim") or max(1, hidden // heads),
        vocabulary=_find(text, "vocab_size") or 0,
        intermediate_size=_find(text, "intermediate_size", "n_inner") or 4 * hidden,
        dtype=str(text.get("dtype") or text.get("torch_dtype") or "bfloat16").removeprefix("torch.")[:20],
        max_position=_find(text, "max_position_embeddings", "n_positions"),
        quantization=_quantization(quantization) if isinstance(quantization, Mapping) else None,
        experts=_find(text, "n_routed_experts", "num_local_experts", "num_experts") or 0,
        expert_intermediate_size=_find(text, "moe_intermediate_size", "intermediate_size") or 0,
        shared_experts=_find(text, "n_shared_experts") or 0,
        dense_layers=_find(text, "first_k_dense_replace") or 0,
        mla_rank=rank + (_find(text, "qk_rope_head_dim") or 0) if rank else None,
        tied_embeddings=text.get("tie_word_embeddings") is True,
        weights_bytes=weights_bytes,
        sliding_layers=sliding,
        sliding_window=window if sliding else 0,
        has_more_parts=any(isinstance(config.get(part), Mapping) for part in ("vision_config", "audio_config")),
    )


def _quantization(config: Mapping[str, Any]) -> str | None:
    method = str(config.get("quant_method", ""))[:40].lower()
    if method == "compressed-tensors":
        groups = config.get("config_groups")
        parts = [part for part in groups.values() if isinstance(part, Mapping)] if isinstance(groups, Mapping) else []
        weights = [part["weights"] for part in parts if isinstance(part.get("weights"), Mapping)]
        bits = [weight["num_bits"] for weight in weights if isinstance(weight.get("num_bits"), int)]
        return {4: "awq", 8: "fp8"}.get(max(bits, default=0), method)
    return method or None


def _find(config: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            continue
        if value > (most := _MOST.get(name, _MOST_OTHERWISE)):
            raise UnusableConfig(f"the model's config.json says {name} is above {most}, which no model has")
        return value
    return None


def _need(config: Mapping[str, Any], *names: str) -> int:
    found = _find(config, *names)
    if found is None:
        raise UnusableConfig(f"the model's config.json has no usable {names[0]}")
    return found
