"""Why a runtime does not come up: facts about flags, access, devices and memory, in the words of the runtimes.

Texts of vLLM 0.33, SGLang 0.5.23, TensorRT-LLM 1.2, huggingface_hub 2.4, torch 2.14, NCCL 2.27, HAMi-core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.kubernetes.simulation.models.situation import GIB, Situation


@dataclass(frozen=True)
class Failure:
    """How a start ends: the lines, exit code and kubelet's reason; `loaded` when the weights were loaded before."""

    lines: tuple[str, ...]
    code: int = 1
    reason: str = ""
    loaded: bool = False


def find_failure(case: Situation) -> Failure | None:
    """The first thing that goes wrong, in the order in which a start meets it."""
    for check in (
        _flags,
        _service_links,
        _device,
        _driver,
        _access,
        _length,
        _parallel,
        _dtype,
        _staging,
        _nccl,
        _memory,
    ):
        failure = check(case)
        if failure is not None:
            return failure
    return None


def _engine(case: Situation, *lines: str, loaded: bool = False) -> Failure:
    """A failure inside the engine process, with the generic tail that every runtime adds."""
    tails = {
        "vllm": ("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",),
        "sglang": ("Received sigquit from a child process. It usually means the child failed.",),
        "trtllm": ("RuntimeError: Executor worker returned error",),
    }
    return Failure((*lines, *tails[case.options.runtime]), loaded=loaded)


def _flags(case: Situation) -> Failure | None:
    if not case.options.unknown:
        return None
    programs = {"vllm": "vllm", "sglang": "launch_server.py", "trtllm": "trtllm-serve"}
    program = programs[case.options.runtime]
    unknown = " ".join(case.options.unknown)
    return Failure((f"usage: {program} [options]", f"{program}: error: unrecognized arguments: {unknown}"), code=2)


def _service_links(case: Situation) -> Failure | None:
    port = case.launch.env.get("VLLM_PORT", "")
    if case.options.runtime != "vllm" or not port.startswith("tcp://"):
        return None
    text = (
        f"ValueError: VLLM_PORT '{port}' appears to be a URI. This may be caused by a Kubernetes service discovery "
        "issue,check the warning in: https://docs.vllm.ai/en/stable/serving/env_vars.html"
    )
    return Failure((text,))


def _device(case: Situation) -> Failure | None:
    if case.on_cpu or case.devices:
        return None
    words = {
        "vllm": (
            "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
            "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` "
            "to turn on verbose logging to help debug the issue.",
        ),
        "sglang": ("RuntimeError: No CUDA GPUs are available",),
        "trtllm": ("RuntimeError: No GPU devices found on the node",),
    }
    return Failure(words[case.options.runtime])


def _driver(case: Situation) -> Failure | None:
    driver = case.launch.machine.driver
    if case.on_cpu or driver is None or not case.needs_cuda_13 or int(driver.split(".")[0]) >= 580:
        return None
    text = (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12040). Please update your GPU "
        "driver by downloading and installing a new version."
    )
    return _engine(case, text)


def _access(case: Situation) -> Failure | None:
    name = case.options.model
    if name.startswith("/"):
        return None
    if case.model is None:
        url = f"https://huggingface.co/{name}/resolve/main/config.json"
        return Failure((
            f"huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. Repository Not Found for url: {url}.",
            "Invalid username or password.",
            f"OSError: {name} is not a local folder and is not a valid model identifier listed on "
            "'https://huggingface.co/models'",
        ))  # fmt: skip
    closed = name in case.launch.world.closed_models
    if closed or (case.model.gated and not (case.token or "").startswith("hf_")):
        url = f"https://huggingface.co/{name}/resolve/main/config.json"
        return Failure((
            f"huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url {url}.",
            f"OSError: You are trying to access a gated repo. Make sure to have access to it at "
            f"https://huggingface.co/{name}.",
        ))  # fmt: skip
    return None


def _length(case: Situation) -> Failure | None:
    model, asked = case.model, case.options.max_length
    if model is None or asked is None or asked <= model.longest:
        return None
    if case.launch.env.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") == "1":
        return None
    if case.options.runtime == "sglang":
        return Failure((
            f"ValueError: User-specified context_length ({asked}) is greater than the derived context_length "
            f"({model.longest}).",
        ))  # fmt: skip
    return Failure((
        f"ValueError: User-specified max_model_len ({asked}) is greater than the derived max_model_len "
        f"(max_position_embeddings={model.longest} or model_max_length=None in model's config.json). To allow "
        "overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.",
    ))  # fmt: skip


def _parallel(case: Situation) -> Failure | None:
    model, tensor = case.model, case.options.tensor_parallel
    if model is not None and model.heads % tensor:
        text = (
            f"ValueError: Total number of attention heads ({model.heads}) must be divisible by tensor parallel size "
            f"({tensor})."
        )
        return Failure((text,))
    if not case.on_cpu and case.parallel > len(case.devices):
        text = (
            f"ValueError: World size ({case.parallel}) is larger than the number of available GPUs "
            f"({len(case.devices)}) in this node. If this is intentional and you are using:"
        )
        return Failure((text,))
    return None


def _dtype(case: Situation) -> Failure | None:
    if case.on_cpu or not case.devices or case.options.text("dtype") != "bfloat16":
        return None
    model = case.devices[0].model
    if model.vendor != "10de" or model.compute >= (8, 0):
        return None
    capability = ".".join(map(str, model.compute))
    return _engine(
        case,
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your "
        f"{model.name} GPU has compute capability {capability}. You can use float16 instead by explicitly setting the "
        "`dtype` flag in CLI, for example: --dtype=half.",
    )


def _staging(case: Situation) -> Failure | None:
    limit, model = case.memory_limit, case.model
    if limit is None or model is None:
        return None
    # One shard (at most 5 GB) passes through host memory; on CPU all weights stay there.
    staged = model.weight_bytes if case.on_cpu else min(model.weight_bytes, 5 * 10**9)
    if limit >= staged + 2 * GIB:
        return None
    return Failure(("Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]",), 137, "OOMKilled")


def _nccl(case: Situation) -> Failure | None:
    if case.on_cpu or case.parallel == 1:
        return None
    if case.sliced:
        return _engine(
            case, "pynccl.py:113] vLLM is using nccl==2.27.7",
            "[HAMI-core ERROR (pid:212 thread=140 multiprocess_memory_limit.c:582)]: Illegal device id: -644371392",
        )  # fmt: skip
    if case.shared_memory >= 256 << 20:
        return None
    return _engine(
        case,
        "torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/"
        "ProcessGroupNCCL.cpp:94, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.27.7",
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.",
        "Error while creating shared memory segment /dev/shm/nccl-x8Fq2T (size 9637888), error: No space left "
        "on device (28)",
    )


def _memory(case: Situation) -> Failure | None:
    if case.model is None:
        return None
    total = case.device_memory
    if not case.on_cpu and case.weights_per_device > total - GIB // 2:
        return _engine(case, *_out_of_memory(case, total), loaded=True)
    room = case.kv_room
    if room <= 0:
        return _engine(case, *_no_blocks(case), loaded=True)
    needed = case.max_length * case.kv_per_token
    if needed <= room or case.options.runtime == "trtllm":
        return None
    if case.options.runtime == "sglang":
        return _engine(case, *_no_blocks(case), loaded=True) if room < 4096 * case.kv_per_token else None
    longest = room // case.kv_per_token // 16 * 16
    return _engine(
        case,
        f"ValueError: To serve at least one request with the model's max seq len ({case.max_length}), "
        f"({needed / GIB:.1f} GiB KV cache is needed, which is larger than the available KV cache memory "
        f"({room / GIB:.2f} GiB). Based on the available memory, the estimated maximum model length is {longest}. Try "
        "increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
        loaded=True,
    )


def _out_of_memory(case: Situation, total: int) -> Iterator[str]:
    if case.options.runtime == "trtllm":
        yield "Executor creation failed due to insufficient GPU memory."
    if case.sliced:
        yield "[HAMI-core ERROR (pid:1 thread=140 allocator.c:53)]: Device 0 OOM 86016000000 / 83886080000"
    yield (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB. GPU 0 has a total capacity of "
        f"{total / GIB:.2f} GiB of which 312.00 MiB is free. Process 1 has {total / GIB - 0.3:.2f} GiB memory in use."
    )


def _no_blocks(case: Situation) -> Iterator[str]:
    match case.options.runtime:
        case "sglang":
            share = case.options.share("mem-fraction-static", default=0.88)
            yield (
                "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. "
                f"Current value: mem_fraction_static={share}"
            )
        case "trtllm":
            yield "Executor creation failed due to insufficient GPU memory."
        case _:
            yield (
                "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
                "initializing the engine."
            )
