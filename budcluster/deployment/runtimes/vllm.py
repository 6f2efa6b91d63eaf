"""vLLM 0.33.0 (flags, endpoints and environment as in its wheel: engine/arg_utils.py, entrypoints, envs)."""

from collections.abc import Sequence
from typing import Any, Final

from budcluster.deployment.fitting.sizing import CPU_KV_GIB, Budget
from budcluster.deployment.runtimes.flags import (
    CODE,
    FILES,
    GROUPS,
    HOSTS,
    KEYS,
    NOWHERE,
    REMOTE_CODE,
    SERVER,
    SIZE,
    TRUST,
    FlagRules,
    fraction_of,
    known_flags,
    spelled_out,
)
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

_IMAGES: Final = {
    Hardware.NVIDIA: "vllm/vllm-openai:v0.33.0",
    Hardware.AMD: "vllm/vllm-openai-rocm:v0.33.0",
    Hardware.CPU: "vllm/vllm-openai-cpu:v0.33.0-x86_64",
}
_PORT: Final = 8000
_QUIET_SINCE: Final = (0, 16, 0)
_DRAINS_SINCE: Final = (0, 18, 0)
_KNOWN: Final = known_flags("vllm-0.33.0")
_FLAGS: Final = FlagRules(
    runtime="vLLM 0.33.0",
    with_value=_KNOWN.with_value,
    with_values=_KNOWN.with_values,
    switches=_KNOWN.switches,
    owned=spelled_out(
        {
            "model": "model",
            "name": "served-model-name",
            "tensor_parallel_size": "tensor-parallel-size",
            "pipeline_parallel_size": "pipeline-parallel-size",
            "max_model_len": "max-model-len",
            "max_num_seqs": "max-num-seqs",
            "dtype": "dtype",
            "quantization": "quantization",
            "kv_cache_dtype": "kv-cache-dtype",
            "revision": "revision",
            "trust_remote_code": "no-trust-remote-code",
            "cache": "download-dir",
            NOWHERE: "host port shutdown-timeout disable-access-log-for-endpoints device-ids",
        }
    ),
    dangerous=spelled_out(
        {
            REMOTE_CODE: "trust-remote-code",
            CODE: "additional-config compilation-config distributed-executor-backend io-processor-plugin "
            "log-config-file logging-config logits-processors middleware model-class-overrides "
            "ray-workers-use-nsight no-ray-workers-use-nsight reasoning-parser-plugin scheduler-cls "
            "structured-outputs-config tool-parser-plugin worker-cls worker-extension-cls",
            FILES: "allowed-local-media-path chat-template config default-mm-loras hf-config-path "
            "mm-encoder-fp8-scale-path mm-encoder-fp8-scale-save-path profiler-config watchdog-config",
            HOSTS: "ec-manager-config ec-transfer-config kv-events-config kv-transfer-config model-loader-extra-config "
            "otlp-traces-endpoint tool-server weight-transfer-config",
            KEYS: "api-key hf-token watermark-config",
            GROUPS: "data-parallel-address data-parallel-backend data-parallel-external-lb "
            "no-data-parallel-external-lb data-parallel-hybrid-lb no-data-parallel-hybrid-lb "
            "data-parallel-multi-port-external-lb data-parallel-rank data-parallel-rpc-port data-parallel-size "
            "data-parallel-size-local data-parallel-start-rank data-parallel-supervisor-port elastic-ep-max-dp-size "
            "enable-elastic-ep no-enable-elastic-ep headless master-addr master-port nnodes node-rank "
            "prefill-context-parallel-size",
            SIZE: "kv-cache-memory-bytes num-gpu-blocks-override spec-model speculative-config",
            SERVER: "enable-ssl-refresh grpc grpc-port ssl-ca-certs ssl-cert-reqs ssl-certfile ssl-ciphers "
            "ssl-keyfile tokens-only uds",
            TRUST: "enable-mm-embeds enable-prompt-embeds trust-request-chat-template trust-request-mm-kwargs",
        }
    ),
)


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
    pod: dict[str, Any] = {
        "runAsUser": 2000,
        "runAsGroup": 0,
        "runAsNonRoot": True,
        "fsGroup": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
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
