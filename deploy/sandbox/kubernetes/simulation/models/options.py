"""Command lines of the runtimes: which flags exist, and what of them matters here.

Flags of vLLM 0.33, SGLang 0.5.23 and TensorRT-LLM 1.2 as far as they are commonly set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_COMMON = (
    "host port revision dtype quantization kv-cache-dtype trust-remote-code tokenizer download-dir load-format "
    "api-key served-model-name tensor-parallel-size pipeline-parallel-size data-parallel-size reasoning-parser "
    "tool-call-parser nnodes node-rank seed chat-template enable-lora log-level max-lora-rank "
)
_VLLM = (
    "model distributed-executor-backend master-addr headless max-model-len max-num-seqs block-size "
    "max-num-batched-tokens gpu-memory-utilization kv-cache-memory-bytes cpu-offload-gb max-loras lora-modules "
    "enable-prefix-caching no-enable-prefix-caching enable-chunked-prefill enforce-eager enable-auto-tool-choice "
    "shutdown-timeout disable-access-log-for-endpoints disable-custom-all-reduce generation-config "
    "limit-mm-per-prompt hf-overrides enable-expert-parallel uvicorn-log-level disable-log-stats async-scheduling "
    "enable-sleep-mode compilation-config speculative-config"
)
_SGLANG = (
    "model-path model tp-size tp pp-size dp-size context-length mem-fraction-static max-running-requests "
    "max-queued-requests max-total-tokens chunked-prefill-size enable-metrics lora-paths max-loras-per-batch "
    "dist-init-addr watchdog-timeout skip-server-warmup attention-backend disable-cuda-graph disable-radix-cache"
)
_TRTLLM = (
    "host port backend tp_size pp_size ep_size max_batch_size max_num_tokens max_seq_len max_beam_width revision "
    "kv_cache_free_gpu_memory_fraction free_gpu_memory_fraction gpus_per_node trust_remote_code reasoning_parser "
    "tool_parser enable_chunked_prefill config extra_llm_api_options log_level set tokenizer"
)
FLAGS: dict[str, frozenset[str]] = {
    "vllm": frozenset((_COMMON + _VLLM).split()),
    "sglang": frozenset((_COMMON + _SGLANG).split()),
    "trtllm": frozenset(_TRTLLM.split()),
}
_SHORT = {
    "-tp": "tensor-parallel-size",
    "-pp": "pipeline-parallel-size",
    "-dp": "data-parallel-size",
    "-q": "quantization",
}


@dataclass(frozen=True)
class Options:
    """A parsed command line; `unknown` holds the flags that the runtime would not accept."""

    runtime: str
    values: dict[str, str] = field(default_factory=dict)
    positional: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def text(self, *names: str, default: str = "") -> str:
        """The first of the flags that is set."""
        return next((self.values[name] for name in names if name in self.values), default)

    def number(self, *names: str, default: int) -> int:
        """The same as an integer; `32k` counts in thousands."""
        text = self.text(*names)
        if text[-1:] in ("k", "K") and text[:-1].isdigit():
            return int(text[:-1]) * (1000 if text[-1] == "k" else 1024)
        return int(text) if text.lstrip("-").isdigit() else default

    def share(self, *names: str, default: float) -> float:
        """The same as a fraction."""
        text = self.text(*names)
        return float(text) if text.replace(".", "", 1).isdigit() else default

    @property
    def model(self) -> str:
        """The repository or path to load."""
        return self.text("model", "model-path") or next(iter(self.positional), "")

    @property
    def served_name(self) -> str:
        """The id in /v1/models."""
        return self.text("served-model-name") or self.model

    @property
    def tensor_parallel(self) -> int:
        """Devices that one layer is spread over."""
        return self.number("tensor-parallel-size", "tp-size", "tp", "tp_size", default=1)

    @property
    def pipeline_parallel(self) -> int:
        """Stages that the layers are cut into."""
        return self.number("pipeline-parallel-size", "pp-size", "pp_size", default=1)

    @property
    def max_length(self) -> int | None:
        """The context asked for, None when left to the runtime."""
        found = self.number("max-model-len", "context-length", "max_seq_len", default=-1)
        return found if found > 0 else None


def parse(runtime: str, words: Sequence[str]) -> Options:
    """Read flags (`--a b`, `--a=b`, `--switch`) and positionals."""
    values: dict[str, str] = {}
    positional: list[str] = []
    unknown: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            positional.append(word)
            continue
        name, equals, value = _SHORT.get(word, word.lstrip("-")).partition("=")
        name = name if runtime == "trtllm" else name.replace("_", "-")
        if not equals and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        if name in FLAGS[runtime] or name in ("O", "n", "r"):
            values[name] = value
        else:
            unknown.append(word.partition("=")[0])
    return Options(runtime, values, tuple(positional), tuple(unknown))
