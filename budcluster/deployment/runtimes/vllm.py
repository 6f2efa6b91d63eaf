"""vLLM 0.33.0 (flags, endpoints and environment as in its wheel: engine/arg_utils.py, entrypoints, envs)."""

from collections.abc import Sequence
from typing import Any, Final

from budcluster.deployment.runtimes.flags import FlagRules, fraction_of
from budcluster.deployment.runtimes.launch import (
    CACHE_PATH,
    Hardware,
    Launch,
    LaunchRequest,
    Probe,
    Runtime,
    amd_security,
    image_for,
    model_cache_env,
    sharing_env,
    startup_probe,
)
from budcluster.deployment.sizing import CPU_KV_GIB, Budget

_IMAGES: Final = {
    Hardware.NVIDIA: "vllm/vllm-openai:v0.33.0",
    Hardware.AMD: "vllm/vllm-openai-rocm:v0.33.0",
    Hardware.CPU: "vllm/vllm-openai-cpu:v0.33.0-x86_64",
}
_PORT: Final = 8000
_QUIET_SINCE: Final = (0, 16, 0)
_DRAINS_SINCE: Final = (0, 18, 0)
_FLAGS: Final = FlagRules(
    runtime="vLLM 0.33.0",
    with_value=frozenset(
        {
            "--block-size", "--cpu-offload-gb", "--data-parallel-size", "--distributed-executor-backend",
            "--gpu-memory-utilization", "--kv-cache-memory-bytes", "--max-loras", "--max-lora-rank",
            "--max-num-batched-tokens", "--reasoning-parser", "--seed", "--tool-call-parser", "--generation-config",
        }
    ),
    switches=frozenset(
        {
            "--disable-custom-all-reduce", "--enable-auto-tool-choice", "--enable-chunked-prefill", "--enable-lora",
            "--enable-prefix-caching", "--enforce-eager", "--no-enable-prefix-caching",
        }
    ),
    owned={
        "--model": "model", "--served-model-name": "name", "--host": "nothing", "--port": "nothing",
        "--tensor-parallel-size": "tensor_parallel_size", "--pipeline-parallel-size": "pipeline_parallel_size",
        "--max-model-len": "max_model_len", "--max-num-seqs": "max_num_seqs", "--dtype": "dtype",
        "--quantization": "quantization", "--kv-cache-dtype": "kv_cache_dtype", "--revision": "revision",
    },
    dangerous={
        "--api-key": "a secret does not belong on a command line; put a gateway with authentication before the runtime",
        "--trust-remote-code": "it runs code from the model's repository; set trust_remote_code if that is meant",
        "--download-dir": "the service decides where files go",
        "--allowed-local-media-path": "it opens the container's files to callers",
        "--middleware": "it runs code", "--tool-parser-plugin": "it runs code",
    },
)  # fmt: skip


def _launch(request: LaunchRequest) -> Launch:
    args = [request.model, "--served-model-name", request.served_name, "--port", str(_PORT)]
    args += ["--tensor-parallel-size", str(request.tensor_parallel)]
    if request.pipeline_parallel > 1:
        args += ["--pipeline-parallel-size", str(request.pipeline_parallel)]
    args += ["--max-model-len", str(request.max_model_len)]
    optional = {
        "--max-num-seqs": request.max_num_seqs,
        "--dtype": "bfloat16" if request.hardware is Hardware.CPU and request.dtype == "auto" else request.dtype,
        "--quantization": request.quantization,
        "--kv-cache-dtype": request.kv_cache_dtype,
        "--revision": request.revision,
    }
    for flag, value in optional.items():
        args += [flag, str(value)] if value is not None else []
    if request.runs_at_least(*_QUIET_SINCE):
        args += ["--disable-access-log-for-endpoints", "/health,/metrics,/ping"]
    args += ["--shutdown-timeout", "60"] if request.runs_at_least(*_DRAINS_SINCE) else []
    args += ["--trust-remote-code"] if request.trust_remote_code else []
    pod, container = _security(request.hardware)
    # Whole GiB: it refuses fractions.
    room_on_cpu = {"VLLM_CPU_KVCACHE_SPACE": str(CPU_KV_GIB)} if request.hardware is Hardware.CPU else {}
    return Launch(
        image=image_for(request, "vLLM", _IMAGES),
        command=(),
        args=(*args, *request.extra_args),
        port=_PORT,
        env={
            **model_cache_env(),
            **sharing_env(request),
            **room_on_cpu,
            "VLLM_CACHE_ROOT": f"{CACHE_PATH}/vllm",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_ENGINE_READY_TIMEOUT_S": str(request.startup_budget_s),
        },
        # Refuses connections until the model is loaded, so one endpoint serves all three probes.
        startup=startup_probe("/health", request.startup_budget_s),
        readiness=Probe("/health", 10, 3, 5),
        liveness=Probe("/health", 20, 6, 10),
        metrics_path="/metrics",
        pod_security=pod,
        container_security=container,
    )


def _security(hardware: Hardware) -> tuple[dict[str, Any], dict[str, Any]]:
    """Contexts of the pod and of the container: the image works as user 2000 of group root."""
    pod = {"runAsUser": 2000, "runAsGroup": 0, "fsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}}
    container: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    match hardware:
        case Hardware.AMD:
            return amd_security(pod, container)
        case Hardware.CPU:
            # Binding memory to NUMA nodes needs system calls that the default profile blocks.
            pod["seccompProfile"] = {"type": "Unconfined"}
            return pod, {**container, "capabilities": {"drop": ["ALL"], "add": ["SYS_NICE"]}}
        case _:
            return pod, container


def _budget(args: Sequence[str]) -> Budget:
    fraction = fraction_of(args, "--gpu-memory-utilization", "--device-memory-utilization")
    return Budget() if fraction is None else Budget(utilization=fraction)


RUNTIME: Final = Runtime(
    version="0.33.0",
    min_driver_major=580,
    hardware=frozenset(_IMAGES),
    # Its wheel: model_executor/layers/quantization and config/cache.py; without what it calls deprecated and refuses.
    quantizations=frozenset(
        {
            "auto_awq", "auto_gptq", "awq", "awq_marlin", "compressed-tensors", "experts_int8", "fp8", "fp8_per_block",
            "fp8_per_tensor", "gptq", "gptq_marlin", "inc", "modelopt", "modelopt_fp4", "modelopt_mxfp8", "moe_wna16",
            "mxfp4", "mxfp8", "quark", "torchao",
        }
    ),
    kv_cache_dtypes=frozenset({"auto", "fp8", "fp8_e4m3", "fp8_e5m2"}),
    flags=_FLAGS,
    budget=_budget,
    launch=_launch,
)  # fmt: skip
