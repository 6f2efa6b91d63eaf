"""What every runtime is asked, and what it answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from budcluster.deployment.fitting.sizing import Budget
from budcluster.deployment.runtimes.flags import FlagRules
from budcluster.deployment.runtimes.image import Version, image_of

CACHE_PATH: Final = "/cache"
MIN_STARTUP_S: Final = 1800
_DOWNLOAD_BYTES_PER_S: Final = 50 * 1024**2
_LOAD_BYTES_PER_S: Final = 500 * 1024**2
_COMPILE_S: Final = 600
_PROBE_PERIOD_S: Final = 10
_VIDEO: Final = 44


class Hardware(StrEnum):
    """What the container runs on."""

    NVIDIA = "NVIDIA"
    AMD = "AMD"
    HABANA = "HABANA"
    CPU = "CPU"


class NotSupported(ValueError):
    """A choice that the runtime has no image or no option for; the message says what there is."""

    def __init__(self, field: str, sentence: str) -> None:
        """`field` is the choice's key in the config."""
        super().__init__(sentence)
        self.field = field


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One replica to be started."""

    model: str
    served_name: str
    hardware: Hardware = Hardware.NVIDIA
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_model_len: int = 4096
    max_num_seqs: int | None = None
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    extra_args: tuple[str, ...] = ()
    file_bytes: int | None = None
    """Of the weight files, as they are downloaded and read; None: nobody knows."""
    loaded_bytes: int | None = None
    """Of the weights in memory, over all devices."""
    whole_gpus_on_hami: bool = False
    """Several whole GPUs of a HAMi node: its in-container control must be off, it breaks NCCL (HAMi #1479, #1764)."""
    image: str | None = None
    """Instead of the pinned one, by tag or digest."""
    startup_timeout_s: int | None = None
    """Instead of the budget that follows from the weights."""

    @property
    def startup_budget_s(self) -> int:
        """Seconds that a replica may take until it answers."""
        return self.startup_timeout_s or startup_budget_s(self.file_bytes)

    def runs_at_least(self, *version: int) -> bool:
        """Whether the image has this version of the runtime or a newer one; one that tells nothing is taken as new."""
        present = image_of(self.image).version if self.image else None
        return present is None or present >= version


@dataclass(frozen=True, slots=True)
class Probe:
    """One HTTP probe."""

    path: str
    period_s: int
    failures: int
    timeout_s: int

    def values(self) -> dict[str, Any]:
        """As the chart takes it."""
        return {
            "path": self.path,
            "periodSeconds": self.period_s,
            "failureThreshold": self.failures,
            "timeoutSeconds": self.timeout_s,
        }


@dataclass(frozen=True, slots=True)
class Launch:
    """How the container is started and watched."""

    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    port: int
    env: Mapping[str, str]
    startup: Probe
    readiness: Probe
    liveness: Probe
    metrics_path: str
    config_files: Mapping[str, str] = field(default_factory=dict)
    pod_security: Mapping[str, Any] = field(default_factory=dict)
    container_security: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Runtime:
    """One engine: what it is called, what it runs on, which flags it knows, and how it is started."""

    version: str
    min_driver_major: int
    """NVIDIA driver that the pinned image's CUDA needs."""
    hardware: frozenset[Hardware]
    quantizations: frozenset[str]
    """Methods that its option takes; empty: the checkpoint alone decides."""
    kv_cache_dtypes: frozenset[str]
    flags: FlagRules
    budget: Callable[[Sequence[str]], Budget]
    """What its extra arguments let it use of a device's memory. Raises FlagRefused."""
    launch: Callable[[LaunchRequest], Launch]

    def driver_for(self, image: str | None) -> int | None:
        """The NVIDIA driver that the image needs, None where nobody knows: the pinned version's, for newer ones too."""
        if image is None:
            return self.min_driver_major
        found = image_of(image)
        pinned: Version = tuple(int(part) for part in self.version.split("."))
        is_new = found.version is not None and found.version >= pinned and not found.has_cuda_12
        return self.min_driver_major if is_new else None

    def prepare(self, request: LaunchRequest) -> Launch:
        """How the replica is started. Raises NotSupported, and FlagRefused for an extra argument."""
        name = self.flags.runtime
        self.flags.check(request.extra_args)
        self.budget(request.extra_args)
        for key, asked, known in (
            ("quantization", request.quantization, self.quantizations),
            ("kv_cache_dtype", request.kv_cache_dtype, self.kv_cache_dtypes),
        ):
            if asked is not None and not known:
                raise NotSupported(key, f"{name} takes the {key} from the checkpoint; deploy one that has it")
            if asked is not None and asked not in known:
                raise NotSupported(key, f"{name} does not know {asked}; it knows {', '.join(sorted(known))}")
        return self.launch(request)


def startup_budget_s(file_bytes: int | None) -> int:
    """Seconds that a replica may take until it answers: download, load and compile, never under half an hour.

    The rates are slow on purpose: a probe that kills a loading model starts the download again.
    """
    if file_bytes is None:
        return 2 * MIN_STARTUP_S
    seconds = file_bytes / _DOWNLOAD_BYTES_PER_S + file_bytes / _LOAD_BYTES_PER_S + _COMPILE_S
    return max(MIN_STARTUP_S, math.ceil(seconds))


def startup_probe(path: str, budget_s: int, *, timeout_s: int = 5) -> Probe:
    """A startup probe with the whole budget."""
    failures = math.ceil(budget_s / _PROBE_PERIOD_S)
    return Probe(path, _PROBE_PERIOD_S, failures, timeout_s)


def model_cache_env() -> dict[str, str]:
    """Where model files go, and no calls home but to the model hub."""
    return {"HF_HOME": f"{CACHE_PATH}/huggingface", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def sharing_env(request: LaunchRequest) -> dict[str, str]:
    """What HAMi's in-container control must be told."""
    return {"CUDA_DISABLE_CONTROL": "true"} if request.whole_gpus_on_hami else {}


def amd_security(pod: Mapping[str, Any], container: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both contexts as ROCm needs them: its devices belong to group video, and it traces its own processes."""
    capabilities = {"drop": ["ALL"], "add": ["SYS_PTRACE"]}
    return (
        {**pod, "seccompProfile": {"type": "Unconfined"}, "supplementalGroups": [_VIDEO]},
        {**container, "capabilities": capabilities},
    )


def image_for(request: LaunchRequest, runtime: str, images: Mapping[Hardware, str]) -> str:
    """The image of the hardware, or the caller's. Raises NotSupported with the hardware that has one."""
    if request.image is not None:
        return request.image
    if request.hardware not in images:
        known = ", ".join(sorted(images))
        raise NotSupported("hardware", f"{runtime} has no image for {request.hardware}; it runs on {known}")
    return images[request.hardware]
