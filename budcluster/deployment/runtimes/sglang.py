"""SGLang 0.5.23 (flags and endpoints as in its wheel)."""

from collections.abc import Sequence
from typing import Any, Final

from budcluster.deployment.runtimes.flags import FlagRules, fraction_of
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
from budcluster.deployment.sizing import Budget

_IMAGES: Final = {
    Hardware.NVIDIA: "lmsysorg/sglang:v0.5.23",
    Hardware.AMD: "lmsysorg/sglang:v0.5.23-rocm700-mi30x",
    Hardware.CPU: "lmsysorg/sglang:v0.5.23-xeon",
}
_PORT: Final = 30_000
_READY_SINCE: Final = (0, 5, 23)
_SLOW_S: Final = 10
_FLAGS: Final = FlagRules(
    runtime="SGLang 0.5.23",
    with_value=frozenset(
        {
            "--chunked-prefill-size", "--dp-size", "--log-level", "--lora-paths", "--max-loras-per-batch",
            "--max-queued-requests", "--max-total-tokens", "--mem-fraction-static", "--reasoning-parser",
            "--tool-call-parser", "--watchdog-timeout",
        }
    ),
    switches=frozenset({"--enable-lora", "--skip-server-warmup"}),
    owned={
        "--model-path": "model", "--served-model-name": "name", "--host": "nothing", "--port": "nothing",
        "--tp-size": "tensor_parallel_size", "--tensor-parallel-size": "tensor_parallel_size",
        "--tp": "tensor_parallel_size", "--pp-size": "pipeline_parallel_size",
        "--pipeline-parallel-size": "pipeline_parallel_size", "--context-length": "max_model_len",
        "--max-running-requests": "max_num_seqs", "--dtype": "dtype", "--quantization": "quantization",
        "--kv-cache-dtype": "kv_cache_dtype", "--revision": "revision", "--enable-metrics": "nothing",
    },
    dangerous={
        "--api-key": "a secret does not belong on a command line; put a gateway with authentication before the runtime",
        "--trust-remote-code": "it runs code from the model's repository; set trust_remote_code if that is meant",
        "--download-dir": "the service decides where files go",
    },
)  # fmt: skip


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
    return Budget() if fraction is None else Budget(static=fraction)


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
