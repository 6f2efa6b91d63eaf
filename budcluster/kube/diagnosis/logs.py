"""What the end of a runtime's log says. Specific lines outweigh the generic ones that follow them."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from budcluster.kube.diagnosis.finding import Finding, Weight


class _Pattern(NamedTuple):
    pattern: re.Pattern[str]
    type: str
    detail: str
    fix: str
    weight: Weight = Weight.CAUSE
    suggests: str | None = None
    """Name of the config key that the group `value` would be a good value of."""
    yields_to: tuple[str, ...] = ()
    """Types that tell more of the same failure, wherever in the log they stand."""


def _p(
    pattern: str,
    *rest: str,
    weight: Weight = Weight.CAUSE,
    suggests: str | None = None,
    yields_to: tuple[str, ...] = (),
) -> _Pattern:
    kind, detail, fix = rest
    return _Pattern(re.compile(pattern, re.IGNORECASE), kind, detail, fix, weight, suggests, yields_to)


_GPU_MEMORY_FIX: Final = (
    "Use more GPUs per replica (tensor_parallel_size), larger GPUs, a quantized model, or fewer tokens; check nothing "
    "else uses the GPU."
)

_PATTERNS: Final[tuple[_Pattern, ...]] = (
    _p(r"greater than the derived (?:max_model_len|context_length) \((?:max_position_embeddings=)?(?P<value>\d+)?",
       "context-too-long", "The context asked for is longer than the model was made for.",
       "Ask for a shorter context.", suggests="max_model_len"),
    _p(r"estimated maximum model length is (?P<value>\d+)", "kv-cache-too-small",
       "The GPU memory left after the weights does not hold one sequence of the context asked for.",
       "Ask for a shorter context, or use more or larger GPUs.", suggests="max_model_len"),
    _p(r"larger than the maximum number of tokens that can be stored in KV cache \((?P<value>\d+)\)",
       "kv-cache-too-small", "The GPU memory left after the weights does not hold the context asked for.",
       "Ask for a shorter context, or use more or larger GPUs.", suggests="max_model_len"),
    _p(r"no available memory for the cache blocks|cannot auto-fit max_model_len", "weights-too-large",
       "The weights leave no room for the key-value cache.", _GPU_MEMORY_FIX),
    _p(r"not enough memory\. please try to increase --mem-fraction-static|insufficient GPU memory", "weights-too-large",
       "The weights leave no room for the key-value cache.", _GPU_MEMORY_FIX),
    _p(r"free memory on device \S+ .* on startup is less than desired|memory capacity is unbalanced", "gpu-in-use",
       "Another process holds memory of the GPU.", "Find what else runs on the node's GPU and stop it."),
    _p(r"warming up sampler with (?P<value>\d+)", "gpu-memory-warm-up",
       "The GPU ran out of memory in the warm-up.", "Lower max_num_seqs."),
    _p(r"\[HAMI-core ERROR.*(?:illegal device id)", "hami-multi-gpu",
       "HAMi's in-container control breaks this runtime.",
       "Ask for whole GPUs, or keep the deployment off nodes that HAMi manages."),
    _p(r"\[HAMI-core ERROR.*device \d+ OOM", "gpu-share-too-small", "The share of the GPU is too small.",
       "Ask for a larger share of GPU memory."),
    _p(r"OutOfMemoryError: (?:CUDA|HIP) out of memory|CUDA out of memory\. Tried|HIP out of memory"
       r"|prefill out of memory|capture cuda graph failed:.*out of memory", "gpu-memory",
       "The GPU ran out of memory.", _GPU_MEMORY_FIX, yields_to=("gpu-share-too-small",)),
    _p(r"number of attention heads \((\d+)\) must be divisible by tensor parallel size|tp_size must be divisible",
       "parallelism", "The model cannot be split over this many GPUs.",
       "Choose a tensor_parallel_size that divides the model's attention heads."),
    _p(r"pipeline parallelism is not supported for this model", "parallelism",
       "The model does not support pipeline parallelism.", "Use tensor_parallel_size instead."),
    _p(r"world size \(\d+\) is larger than the number of available GPUs", "parallelism",
       "The runtime was told to use more GPUs than it was given.", "Lower tensor_parallel_size."),
    _p(r"bfloat16 is only supported on GPUs with compute capability", "dtype-unsupported",
       "The GPU does not support bfloat16.", "Set dtype to float16.",),
    _p(r"quantization method \S+ is not supported for the current GPU|supported dtypes:", "quantization-unsupported",
       "The GPU or the number format does not support this quantization.", "Use another quantization or newer GPUs."),
    _p(r"model architectures \[.*\] (?:are not supported|failed to be inspected)"
       r"|does not recognize this architecture", "architecture-unsupported",
       "This version of the runtime does not know the model's architecture.", "Use a newer image or another runtime."),
    _p(r"consider setting `?trust_remote_code=True|requires you to execute the configuration file", "remote-code",
       "The model brings code of its own, which was not allowed.", "Set trust_remote_code if you trust its authors."),
    _p(r"cannot access gated repo|trying to access a gated repo|GatedRepoError|access to model .* is restricted",
       "model-gated", "The model is gated, and the token has no access to it.",
       "Accept the model's terms on its page, and name a Hugging Face credential whose account did."),
    _p(r"RepositoryNotFoundError|repository not found for url|invalid repository id or local directory"
       r"|is not a valid model identifier", "model-not-found-or-private", "There is no such model, or it is private.",
       "Check the model's id; for a private one name a Hugging Face credential whose account may read it.",
       yields_to=("model-gated",)),
    _p(r"invalid username or password|401 client error", "model-token", "The model hub does not accept the token.",
       "Name a valid Hugging Face credential.", yields_to=("model-gated", "model-not-found-or-private")),
    _p(r"429 client error", "hub-rate-limit", "The model hub limits the requests.", "Wait, or name a credential."),
    _p(r"couldn't connect to 'https?://|LocalEntryNotFoundError|OfflineModeIsEnabled|max retries exceeded with url",
       "hub-unreachable", "The pod cannot reach the model hub.", "Check the nodes' egress, or set the hub's mirror.",
       yields_to=("model-gated", "model-not-found-or-private", "model-token", "hub-rate-limit", "disk-full")),
    _p(r"driver on your system is too old|driver version is insufficient|error 803", "driver-too-old",
       "The node's NVIDIA driver is too old for the image.", "Upgrade it (CUDA 13 needs 580), or use an older image."),
    _p(r"no kernel image is available for execution", "gpu-generation", "The image was not built for this GPU.",
       "Use an image for this GPU's generation."),
    _p(r"error 802", "fabric-manager", "The NVSwitch fabric is not up.", "Start the Fabric Manager on the node."),
    _p(r"failed to infer device type|found no nvidia driver|no cuda gpus are available|no gpu devices found"
       r"|libcuda\.so\.1: cannot open", "gpu-not-visible", "The container sees no GPU.",
       "Check the runtime class, the device plugin, and that the deployment asks for a GPU."),
    _p(r"dev/shm/nccl.*no space left|error while creating shared memory segment", "shared-memory",
       "The shared memory of the container is too small for several GPUs.", "Raise the shared memory size."),
    _p(r"duplicate gpu detected", "gpu-shared", "Two workers got the same physical GPU.",
       "Several GPUs per replica need whole GPUs, not shares."),
    _p(r"no socket interface found|nccl(?:Remote|System|UnhandledCuda|Internal)Error|ncclInvalidUsage|NCCL error"
       r"|collective operation timeout", "nccl", "The GPUs cannot talk to each other (NCCL).",
       "Check the node's fabric; NCCL_DEBUG=INFO says more.",
       yields_to=("shared-memory", "gpu-shared", "hami-multi-gpu", "fabric-manager", "gpu-memory")),
    _p(r"VLLM_PORT '.*' appears to be a URI", "service-links", "A Service called vllm disturbs the runtime.",
       "Rename that Service, or switch service links off."),
    _p(r"LoRA rank (?P<value>\d+) is greater than max_lora_rank", "lora-rank", "The adapter's rank is too high.",
       "Raise --max-lora-rank."),
    _p(r"error: unrecognized arguments: (?P<value>\S+)", "unknown-flag", "The runtime does not know a flag.",
       "Remove the extra argument."),
    _p(r"error: argument \S+: (?:invalid|expected)", "bad-flag-value",
       "The runtime does not accept the value of a flag.", "Correct the value; the line below names the choices."),
    _p(r"failed to bind socket|address already in use", "port-in-use",
       "The runtime cannot listen on its port: something in the pod has it.",
       "Remove a port from the extra arguments, and anything else that listens there."),
    _p(r"\[Errno 28\] No space left on device", "disk-full", "A disk is full: model files did not fit.",
       "Make the cache larger, or free the node's disk."),
    _p(r"couldn't get a response from detokenizer", "engine-hangs",
       "The runtime's server answers, but its engine does not.",
       "Look at what its log says before; a GPU that hangs, or too few processors, does that.", weight=Weight.LIKELY),
    _p(r"capture cuda graph failed", "graph-capture", "The runtime could not capture CUDA graphs.",
       "Read the reason in the line; without graphs (--disable-cuda-graph) it starts, and is slower.",
       weight=Weight.LIKELY),
    _p(r"exit code: -9", "host-memory", "A worker was killed, most likely because host memory ran out.",
       "Use a node with more memory.", weight=Weight.LIKELY),
    _p(r"KeyboardInterrupt: terminated", "startup-timeout", "It was stopped while it was still starting.",
       "Give it a longer startup timeout.", weight=Weight.LIKELY),
    _p(r"engine core initialization failed|WorkerProc initialization failed|EngineCore failed to start|EngineDeadError"
       r"|received sigquit from a child|executor worker returned error|scheduler died during initialization",
       "engine-failed", "The runtime's engine did not start.", "Read the lines above it.", weight=Weight.SYMPTOM),
)  # fmt: skip

_HANGS: Final = re.compile(r"vLLM is using nccl==", re.IGNORECASE)
_CONTEXT_LINES: Final = 3


def explain_log(lines: Sequence[str]) -> Finding | None:
    """The heaviest cause that the log names; of equals the one nearest to its end. None when it names none."""
    best: Finding | None = None
    for position, candidate, found in _matches(lines):
        if best is None or candidate.weight > best.weight:
            best = _finding(candidate, found, lines, position)
        if best.weight is Weight.CAUSE:
            return _better(best, candidate, lines)
    return best


def explain_silence(lines: Sequence[str]) -> Finding | None:
    """What a log that ended there, or goes on no more, hints at; None for most."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    if not _HANGS.search(last):
        return None
    return Finding(
        "nccl-hang", "The runtime has said nothing since its GPUs began to talk to each other (NCCL).",
        "With HAMi ask for whole GPUs, or keep the deployment off nodes that it manages; else look at the fabric.",
        Weight.SYMPTOM, lines=tuple(lines[-_CONTEXT_LINES:]),
    )  # fmt: skip


def _matches(lines: Sequence[str]) -> Iterator[tuple[int, _Pattern, re.Match[str]]]:
    """From the end of the log; of one line the pattern that stands first is first."""
    for position in range(len(lines) - 1, -1, -1):
        for candidate in _PATTERNS:
            if found := candidate.pattern.search(lines[position]):
                yield position, candidate, found


def _better(best: Finding, its: _Pattern, lines: Sequence[str]) -> Finding:
    for position, candidate, found in _matches(lines) if its.yields_to else ():
        if candidate.type in its.yields_to:
            return _finding(candidate, found, lines, position)
    return best


def _finding(candidate: _Pattern, found: re.Match[str], lines: Sequence[str], position: int) -> Finding:
    value = found.groupdict().get("value")
    return Finding(
        candidate.type,
        candidate.detail,
        candidate.fix,
        candidate.weight,
        lines=tuple(lines[max(0, position - _CONTEXT_LINES + 1) : position + 1]),
        suggestion={candidate.suggests: int(value)} if candidate.suggests and value else None,
    )
