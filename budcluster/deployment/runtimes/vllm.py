"""vLLM 0.33.0 (flags, endpoints and environment as in its wheel: engine/arg_utils.py, entrypoints, envs)."""

from collections.abc import Sequence
from dataclasses import replace
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
    count_of,
    fraction_of,
    known_flags,
    named,
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
_UNITS: Final = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
"""Behind numbers of tokens (engine/arg_utils.py, `human_readable_int`)."""
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
    steady=named(
        "aggregate-engine-logging allow-credentials allow-deprecated-quantization allowed-headers "
        "allowed-media-domains allowed-methods allowed-origins anthropic-disabled-thinking-effort api-server-count "
        "async-scheduling attention-backend block-size chat-template-content-format code-revision cohere-format "
        "cohere-is-reasoning-model collect-detailed-traces config-format cp-kv-cache-interleave-size "
        "cpu-distributed-timeout-seconds cudagraph-metrics custom-histogram-buckets dcp-comm-backend "
        "dcp-kv-cache-interleave-size default-chat-template-kwargs device-memory-utilization disable-cascade-attn "
        "disable-custom-all-reduce disable-fastapi-docs disable-hybrid-kv-cache-manager disable-log-stats "
        "disable-nccl-for-dp-synchronization disable-sliding-window disable-uvicorn-access-log "
        "distributed-timeout-seconds dp-supervisor-probe-failure-threshold dp-supervisor-probe-interval-s "
        "dp-supervisor-probe-timeout-s dp-sync-interval enable-auto-tool-choice enable-chunked-prefill "
        "enable-force-include-usage enable-layerwise-nvtx-tracing enable-log-deltas enable-log-outputs "
        "enable-log-requests enable-logging-iteration-details enable-mfu-metrics enable-offline-docs "
        "enable-per-request-metrics enable-prefix-caching enable-prompt-tokens-details enable-request-id-headers "
        "enable-server-load-tracking enable-tokenizer-info-endpoint enforce-eager exclude-tools-when-tool-choice-none "
        "fail-on-environ-validation fingerprint-mode fingerprint-value generation-config gpu-memory-utilization "
        "h11-max-header-count interleave-mm-strings jit-monitor-mode jit-monitor-verbose kv-cache-metrics "
        "kv-cache-metrics-sample log-error-stack log-level logprobs-mode long-prefill-token-threshold "
        "long-prefill-token-threshold-adaptive max-log-len max-num-active-seqs max-num-batched-tokens "
        "max-num-queued-reqs max-num-queued-tokens max-num-scheduled-tokens max-parallel-loading-workers numa-bind "
        "numa-bind-cpus numa-bind-nodes override-generation-config per-request-spec-decode-metrics "
        "prefill-schedule-interval prefix-cache-retention-interval prefix-caching-hash-algo prefix-match-unit "
        "reasoning-effort-map reasoning-parser renderer-num-workers response-role return-tokens-as-token-ids "
        "root-path safetensors-load-strategy safetensors-prefetch-block-size safetensors-prefetch-num-threads "
        "scheduler-reserve-full-isl scheduling-policy seed show-hidden-metrics-for-version skip-tokenizer-init "
        "sse-keep-alive-interval stream-interval tokenizer tokenizer-mode tokenizer-revision tool-call-parser "
        "tool-strict-level use-tqdm-on-load uvicorn-log-level"
    ),
    growing=named(
        "cudagraph-capture-sizes enable-dbo enable-eplb enable-lora enable-mixed-moe-lora-format "
        "enable-moe-shared-loras enable-tower-connector-lora eplb-config fully-sharded-loras "
        "kv-cache-dtype-skip-layers lora-dtype lora-modules lora-target-modules max-cpu-loras "
        "max-cudagraph-capture-size max-lora-cls-labels max-lora-rank max-loras spec-method spec-tokens "
        "specialize-active-lora"
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
    batch = count_of(args, "--max-num-batched-tokens", units=_UNITS)
    if batch is None and "--no-enable-chunked-prefill" in args:
        batch = 0
    budget = Budget(slides="--disable-hybrid-kv-cache-manager" not in args)
    budget = budget if fraction is None else replace(budget, utilization=fraction)
    return budget if batch is None else replace(budget, batch_tokens=batch)


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
