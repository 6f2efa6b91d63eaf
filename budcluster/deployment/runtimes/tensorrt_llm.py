"""TensorRT-LLM 1.2.1 (commands/serve.py and serve/openai_server.py of its source)."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from budcluster.deployment.fitting.sizing import Budget
from budcluster.deployment.runtimes.flags import (
    NOWHERE,
    REMOTE_CODE,
    FlagRules,
    count_of,
    fraction_of,
    named,
    spelled_out,
)
from budcluster.deployment.runtimes.launch import (
    Hardware,
    Launch,
    LaunchRequest,
    NotSupported,
    Probe,
    Runtime,
    image_for,
    model_cache_env,
    sharing_env,
    startup_probe,
)

_IMAGES: Final = {Hardware.NVIDIA: "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"}
_PORT: Final = 8000
_CONFIG: Final = "serve.json"
_FLAGS: Final = FlagRules(
    runtime="TensorRT-LLM 1.2.1",
    with_value=frozenset(
        {
            "--ep_size", "--free_gpu_memory_fraction", "--gpus_per_node", "--kv_cache_free_gpu_memory_fraction",
            "--log_level", "--max_beam_width", "--max_num_tokens", "--reasoning_parser", "--tool_parser",
        }
    ),
    switches=frozenset({"--enable_chunked_prefill"}),
    owned=spelled_out(
        {
            "tensor_parallel_size": "tp_size",
            "pipeline_parallel_size": "pp_size",
            "max_model_len": "max_seq_len",
            "max_num_seqs": "max_batch_size",
            "revision": "revision",
            NOWHERE: "host port backend config extra_llm_api_options",
        }
    ),
    dangerous=spelled_out({REMOTE_CODE: "trust_remote_code"}),
    steady=named(
        "enable_chunked_prefill free_gpu_memory_fraction gpus_per_node kv_cache_free_gpu_memory_fraction log_level "
        "max_num_tokens reasoning_parser tool_parser"
    ),
    growing=named("max_beam_width"),
)  # fmt: skip


def _launch(request: LaunchRequest) -> Launch:
    if request.model.startswith(("s3://", "gs://")):
        raise NotSupported("/model", "TensorRT-LLM reads no object stores; use vLLM or SGLang, which stream from them")
    # Its default host is localhost, and no probe ever reaches that.
    args = [request.model, "--host", "0.0.0.0", "--port", str(_PORT), "--backend", "pytorch"]  # noqa: S104
    args += ["--tp_size", str(request.tensor_parallel), "--pp_size", str(request.pipeline_parallel)]
    args += ["--max_seq_len", str(request.max_model_len), "--config", f"/etc/model-runtime/{_CONFIG}"]
    if request.max_num_seqs is not None:
        args += ["--max_batch_size", str(request.max_num_seqs)]
    args += ["--revision", request.revision] if request.revision else []
    args += ["--trust_remote_code"] if request.trust_remote_code else []
    return Launch(
        image=image_for(request, "TensorRT-LLM", _IMAGES),
        command=("trtllm-serve",),
        args=(*args, *request.extra_args),
        port=_PORT,
        env={**model_cache_env(), **sharing_env(request)},
        startup=startup_probe("/health", request.startup_budget_s),
        readiness=Probe("/health", 10, 3, 5),
        liveness=Probe("/health", 20, 6, 10),
        # /metrics is a JSON array that empties itself when read; Prometheus is answered elsewhere, and only on request.
        metrics_path="/prometheus/metrics",
        config_files={_CONFIG: json.dumps(_config(request), indent=2)},
        pod_security={"seccompProfile": {"type": "RuntimeDefault"}},
        # The image runs as root and keeps its files in root's home.
        container_security={"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    )


def _config(request: LaunchRequest) -> dict[str, Any]:
    """The options file: JSON is YAML."""
    config: dict[str, Any] = {"return_perf_metrics": True, "enable_iter_perf_stats": True}
    if request.kv_cache_dtype is not None:
        config["kv_cache_config"] = {"dtype": request.kv_cache_dtype}
    if request.dtype != "auto":
        config["dtype"] = request.dtype
    return config


def _budget(args: Sequence[str]) -> Budget:
    fraction = fraction_of(args, "--kv_cache_free_gpu_memory_fraction", "--free_gpu_memory_fraction")
    batch = count_of(args, "--max_num_tokens")
    budget = Budget() if fraction is None else Budget(of_the_rest=fraction)
    return budget if batch is None else replace(budget, batch_tokens=batch)


RUNTIME: Final = Runtime(
    version="1.2.1",
    min_driver_major=580,
    hardware=frozenset(_IMAGES),
    quantizations=frozenset(),
    kv_cache_dtypes=frozenset({"auto", "fp8"}),
    flags=_FLAGS,
    budget=_budget,
    launch=_launch,
)
