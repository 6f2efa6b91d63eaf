"""A few well-known models: the shape that decides memory and limits, as their config.json states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """One model repository. `parameters` in millions; weights are stored with `width` bytes each."""

    name: str
    architecture: str
    kind: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    longest: int
    parameters: int
    head_dim: int = 128
    vocabulary: int = 128_256
    gated: bool = False
    width: int = 2

    @property
    def weight_bytes(self) -> int:
        """Size of the weight files."""
        return self.parameters * 1_000_000 * self.width

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of all layers with 16-bit elements."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 2

    def config(self) -> Obj:
        """Its config.json."""
        return {
            "architectures": [self.architecture],
            "model_type": self.kind,
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "intermediate_size": self.hidden * 4,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.longest,
            "vocab_size": self.vocabulary,
            "torch_dtype": "bfloat16",
            "tie_word_embeddings": self.parameters < 2000,
        }


_ALL = (
    Model("Qwen/Qwen2.5-0.5B-Instruct", "Qwen2ForCausalLM", "qwen2", 24, 896, 14, 2, 32768, 494, 64, 151_936),
    Model("Qwen/Qwen2.5-7B-Instruct", "Qwen2ForCausalLM", "qwen2", 28, 3584, 28, 4, 32768, 7616, 128, 152_064),
    Model("Qwen/Qwen3-0.6B", "Qwen3ForCausalLM", "qwen3", 28, 1024, 16, 8, 40960, 752, 128, 151_936),
    Model("Qwen/Qwen3-8B", "Qwen3ForCausalLM", "qwen3", 36, 4096, 32, 8, 40960, 8191, 128, 151_936),
    Model("Qwen/Qwen3-32B", "Qwen3ForCausalLM", "qwen3", 64, 5120, 64, 8, 40960, 32762, 128, 151_936),
    Model("facebook/opt-125m", "OPTForCausalLM", "opt", 12, 768, 12, 12, 2048, 125, 64, 50_272),
    Model("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "LlamaForCausalLM", "llama", 22, 2048, 32, 4, 2048, 1100, 64, 32_000),
    Model("mistralai/Mistral-7B-Instruct-v0.3", "MistralForCausalLM", "mistral", 32, 4096, 32, 8, 32768, 7248,
          vocabulary=32_768),
    Model("meta-llama/Llama-3.1-8B-Instruct", "LlamaForCausalLM", "llama", 32, 4096, 32, 8, 131072, 8030, gated=True),
    Model("meta-llama/Llama-3.3-70B-Instruct", "LlamaForCausalLM", "llama", 80, 8192, 64, 8, 131072, 70554, gated=True),
)  # fmt: skip

MODELS: dict[str, Model] = {model.name: model for model in _ALL}
