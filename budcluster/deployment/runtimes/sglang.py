"""SGLang 0.5.23 (flags and endpoints as in its wheel)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from budcluster.deployment.fitting.sizing import Budget
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
    starting,
    value_of,
)
from budcluster.deployment.runtimes.launch import (
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
    Hardware.NVIDIA: "lmsysorg/sglang:v0.5.23",
    Hardware.AMD: "lmsysorg/sglang:v0.5.23-rocm700-mi30x",
    Hardware.CPU: "lmsysorg/sglang:v0.5.23-xeon",
}
_PORT: Final = 30_000
_READY_SINCE: Final = (0, 5, 23)
_SLOW_S: Final = 10
_KNOWN: Final = known_flags("sglang-0.5.23")
_FLAGS: Final = FlagRules(
    runtime="SGLang 0.5.23",
    with_value=_KNOWN.with_value,
    with_values=_KNOWN.with_values,
    switches=_KNOWN.switches,
    owned=spelled_out(
        {
            "model": "model model-path",
            "name": "served-model-name",
            "tensor_parallel_size": "tp tp-size tensor-parallel-size",
            "pipeline_parallel_size": "pp pp-size pipeline-parallel-size",
            "max_model_len": "context-length",
            "max_num_seqs": "max-running-requests",
            "dtype": "dtype",
            "quantization": "quantization",
            "kv_cache_dtype": "kv-cache-dtype",
            "revision": "revision",
            "cache": "download-dir",
            NOWHERE: "host port enable-metrics device base-gpu-id gpu-id-step",
        }
    ),
    dangerous=spelled_out(
        {
            REMOTE_CODE: "trust-remote-code",
            CODE: "custom-weight-loader enable-custom-logit-processor enable-unified-cache-external-linker "
            "forward-hooks hicache-storage-backend hicache-storage-backend-extra-config sidecar sidecar-args "
            "unified-cache-external-linker-backend unified-cache-external-linker-config warmups",
            FILES: "chat-template completion-template config crash-dump-folder debug-tensor-dump-input-file "
            "debug-tensor-dump-layers debug-tensor-dump-output-folder decrypted-config-file "
            "decrypted-draft-config-file deepep-config dllm-algorithm-config enable-flexkv enable-lmcache "
            "export-metrics-to-file export-metrics-to-file-dir file-storage-path flexkv-config-file "
            "init-expert-location kt-weight-path lmcache-config-file log-requests-target model-checksum "
            "modelopt-checkpoint-restore-path modelopt-checkpoint-save-path modelopt-export-path msprobe-dump-config "
            "pdmux-config-path ple-offload-dir quantization-param-path quantize-and-serve spec-trace-dir "
            "speculative-adaptive-config speculative-dspark-confidence-sts-path speculative-dspark-sps-table-path "
            "speculative-ngram-external-corpus-path speculative-token-map uno-lora-path weight-cache-mode "
            "weight-cache-socket",
            HOSTS: "checkpoint-engine-wait-weights-before-ready decoupled-spec-bind-endpoint "
            "decoupled-spec-connect-endpoints decoupled-spec-rank decoupled-spec-role disaggregation-bootstrap-port "
            "disaggregation-ib-device disaggregation-mode disaggregation-transfer-backend dist-init-addr "
            "enable-mm-global-cache enable-pd-role-switch encoder-bootstrap-port encoder-register-urls "
            "encoder-transfer-backend encoder-urls engine-info-bootstrap-port forward-pass-metrics-ipc-name "
            "gated-launch-port kv-events-config load-publish-endpoint mm-global-cache-backend modelexpress-config "
            "model-loader-extra-config mooncake-ib-device nccl-init-addr nccl-port otlp-traces-endpoint "
            "remote-instance-weight-loader-backend remote-instance-weight-loader-seed-instance-ip "
            "remote-instance-weight-loader-seed-instance-service-port "
            "remote-instance-weight-loader-send-weights-group-ports "
            "remote-instance-weight-loader-start-seed-via-transfer-engine tool-server",
            KEYS: "admin-api-key api-key ssl-keyfile-password watermark-config",
            GROUPS: "attention-context-parallel-size attention-data-parallel-size attn-cp-size attn-dp-size "
            "data-parallel-size dp-size dwdp-size elastic-ep-backend elastic-ep-initial-size elastic-ep-join-mode "
            "elastic-ep-join-rank-offset max-ep-size moe-data-parallel-size moe-dp-size nnodes node-rank use-ray",
            SIZE: "speculative-draft-model speculative-draft-model-path speculative-draft-model-quantization "
            "speculative-draft-model-revision",
            SERVER: "enable-ssl-refresh encoder-only grpc-http-sidecar-port grpc-mode grpc-port is-embedding "
            "language-only smg-grpc-mode smg-http-sidecar-port ssl-ca-certs ssl-certfile ssl-keyfile",
            TRUST: "trust-mm-content-hashes trust-request-chat-template",
        }
    ),
    steady=named(
        "abort-on-priority-when-disabled allow-auto-truncate allowed-media-domains attention-backend "
        "batch-notify-size bucket-e2e-request-latency bucket-inter-token-latency bucket-time-to-first-token "
        "chunked-prefill-size constrained-json-disable-any-whitespace constrained-json-max-whitespace-cnt "
        "constrained-json-whitespace-pattern decode-attention-backend decode-log-interval "
        "default-chat-template-kwargs default-priority-value detokenizer-worker-num disable-chunked-prefix-cache "
        "disable-cuda-graph disable-cuda-graph-padding disable-custom-all-reduce disable-decode-cuda-graph "
        "disable-fast-image-processor disable-hybrid-swa-memory disable-outlines-disk-cache disable-overlap-schedule "
        "disable-prefill-cuda-graph disable-priority-preemption disable-radix-cache disable-tokenizer-batch-decode "
        "dist-timeout dynamic-batch-tokenizer-batch-size dynamic-batch-tokenizer-batch-timeout enable-cache-report "
        "enable-cudagraph-gc enable-dynamic-batch-tokenizer enable-http-worker-reuseport enable-http2 "
        "enable-metrics-for-all-schedulers enable-mfu-metrics enable-p2p-check enable-prefill-delayer "
        "enable-priority-scheduling enable-request-time-stats-logging enable-strict-thinking "
        "enable-tokenizer-batch-encode enable-trace extra-metric-labels fastapi-root-path gc-threshold "
        "gc-warning-threshold-secs generation-tokens-buckets grammar-backend grpc-response-timeout-secs "
        "hf-chat-template-name http2-initial-connection-window-size http2-max-concurrent-streams "
        "incremental-streaming-output load-balance-method log-level log-level-http log-requests log-requests-format "
        "log-requests-level max-queued-requests max-total-tokens media-url-max-file-size-mb mem-fraction-static "
        "min-free-slots-delay num-continuous-decode-steps num-reserved-decode-tokens numa-node page-size "
        "pp-max-micro-batch-size preferred-sampling-params prefill-attention-backend prefill-decode-interval "
        "prefill-decode-interval-min-bs prefill-delayer-forward-passes-buckets prefill-delayer-max-delay-ms "
        "prefill-delayer-max-delay-passes prefill-delayer-queue-min-ratio prefill-delayer-token-usage-low-watermark "
        "prefill-delayer-wait-seconds-buckets prefill-max-requests priority-scheduling-preemption-threshold "
        "prompt-tokens-buckets radix-eviction-policy radix-eviction-policy-config random-seed reasoning-parser "
        "retraction-policy return-input-ids return-output-ids sampling-backend sampling-defaults "
        "schedule-conservativeness schedule-low-priority-values-first schedule-policy scheduler-recv-interval "
        "show-time-cost skip-server-warmup skip-tokenizer-init sleep-on-idle soft-watchdog-timeout stream-interval "
        "stream-response-default-include-usage strip-thinking-cache tokenizer-backend "
        "tokenizer-metrics-allowed-custom-labels tokenizer-metrics-custom-labels-header tokenizer-mode tokenizer-path "
        "tokenizer-worker-num tool-call-parser trace-modules uvicorn-access-log-exclude-prefixes watchdog-timeout "
        "weight-loader-disable-mmap weight-loader-drop-cache-after-load weight-loader-prefetch-checkpoints "
        "weight-loader-prefetch-num-threads weight-version"
    ),
    growing=starting(_KNOWN.with_value | _KNOWN.with_values | _KNOWN.switches, "cuda-graph-", "lora-", "speculative-")
    | named(
        "enable-eplb enable-fp32-lm-head enable-lora enable-lora-overlap-loading enable-torch-compile "
        "enable-two-batch-overlap ep-num-redundant-experts max-loaded-loras max-lora-chunk-size max-lora-rank "
        "max-loras-per-batch torch-compile-max-bs"
    ),
)


def _launch(request: LaunchRequest) -> Launch:
    # Without --host it listens on 127.0.0.1 and no probe ever reaches it.
    args = ["--model-path", request.model, "--served-model-name", request.served_name]
    args += ["--host", "0.0.0.0", "--port", str(_PORT)]  # noqa: S104 - inside its own pod
    args += ["--tp-size", str(request.tensor_parallel)]
    if request.pipeline_parallel > 1:
        args += ["--pp-size", str(request.pipeline_parallel)]
    args += ["--context-length", str(request.max_model_len), "--enable-metrics"]
    optional = {
        "--max-running-requests": request.max_num_seqs,
        "--dtype": request.dtype,
        "--quantization": request.quantization,
        "--kv-cache-dtype": request.kv_cache_dtype,
        "--revision": request.revision,
    }
    for flag, value in optional.items():
        args += [flag, str(value)] if value is not None else []
    args += ["--trust-remote-code"] if request.trust_remote_code else []
    # /health generates a token and takes a second and more; /ready is cheap and says the same.
    ready = "/ready" if request.runs_at_least(*_READY_SINCE) else "/health"
    pod: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    container: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    if request.hardware is Hardware.AMD:
        pod, container = amd_security(pod, container)
    return Launch(
        image=image_for(request, "SGLang", _IMAGES),
        command=("python3", "-m", "sglang.launch_server"),
        args=(*args, *request.extra_args),
        port=_PORT,
        env={**model_cache_env(), **sharing_env(request)},
        startup=startup_probe(ready, request.startup_budget_s, timeout_s=_SLOW_S),
        readiness=Probe(ready, 10, 3, _SLOW_S),
        liveness=Probe("/health", 30, 4, 25),
        metrics_path="/metrics",
        pod_security=pod,
        container_security=container,
    )


def _budget(args: Sequence[str]) -> Budget:
    fraction = fraction_of(args, "--mem-fraction-static")
    name = "--chunked-prefill-size"
    is_unchunked = value_of(args, name) == "-1"
    batch = 0 if is_unchunked else count_of(args, name)
    budget = Budget() if fraction is None else Budget(static=fraction)
    return budget if batch is None else replace(budget, batch_tokens=batch)


RUNTIME: Final = Runtime(
    version="0.5.23",
    min_driver_major=580,
    hardware=frozenset(_IMAGES),
    # Its wheel, srt/arg_groups: choices.py and fields/model.py.
    quantizations=frozenset(
        {
            "awq", "awq_marlin", "compressed-tensors", "fp8", "gptq", "gptq_marlin", "modelopt", "modelopt_fp4",
            "moe_wna16", "mxfp4", "mxfp8", "quark", "w8a8_fp8", "w8a8_int8",
        }
    ),
    kv_cache_dtypes=frozenset({"auto", "fp8_e4m3", "fp8_e5m2"}),
    flags=_FLAGS,
    budget=_budget,
    launch=_launch,
)  # fmt: skip
