"""One start of a runtime: what it was asked to do, and the machine, model and memory it finds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandbox.kubernetes.simulation.gpu_runtime import chosen_cards, visible_devices
from sandbox.kubernetes.simulation.images import split
from sandbox.kubernetes.simulation.machines import Device
from sandbox.kubernetes.simulation.models.catalogue import MODELS, Model
from sandbox.kubernetes.simulation.models.options import Options, parse
from sandbox.kubernetes.simulation.programs import Launch
from sandbox.kubernetes.simulation.quantities import amounts

GIB = 1 << 30


@dataclass(frozen=True)
class Situation:
    """Memory in bytes; `device_memory` is what one device shows (a HAMi slice when there is one)."""

    launch: Launch
    options: Options
    model: Model | None
    devices: list[Device]
    on_cpu: bool
    device_memory: int
    sliced: bool

    @property
    def parallel(self) -> int:
        """Devices that share the weights."""
        return self.options.tensor_parallel * self.options.pipeline_parallel

    @property
    def weights_per_device(self) -> int:
        """Weights on one device; 8- and 4-bit quantization shrink them."""
        method = self.options.text("quantization")
        factor = 0.3 if re.search(r"awq|gptq|fp4", method) else 0.55 if "fp8" in method else 1.0
        return int((self.model.weight_bytes if self.model else 0) * factor / self.parallel)

    @property
    def max_length(self) -> int:
        """The context served."""
        return self.options.max_length or (self.model.longest if self.model else 0)

    @property
    def kv_per_token(self) -> int:
        """Bytes of KV cache for one token on one device."""
        if self.model is None:
            return 1
        half = 2 if "fp8" in self.options.text("kv-cache-dtype") else 1
        return max(self.model.kv_bytes_per_token // self.parallel // half, 1)

    @property
    def kv_room(self) -> int:
        """Bytes left on one device for the KV cache, after weights and 1.2 GiB of activations."""
        if self.on_cpu:
            return int(float(self.launch.env.get("VLLM_CPU_KVCACHE_SPACE", "4"))) * GIB
        free = self.device_memory - self.weights_per_device
        if self.options.runtime == "trtllm":
            share = self.options.share("kv_cache_free_gpu_memory_fraction", "free_gpu_memory_fraction", default=0.9)
            return int(free * share)
        default = 0.92 if self.options.runtime == "vllm" else 0.88
        share = self.options.share("gpu-memory-utilization", "mem-fraction-static", default=default)
        return int(self.device_memory * share) - self.weights_per_device - int(1.2 * GIB)

    @property
    def token(self) -> str | None:
        """The Hugging Face token in the environment."""
        return self.launch.env.get("HF_TOKEN") or self.launch.env.get("HUGGING_FACE_HUB_TOKEN")

    @property
    def memory_limit(self) -> int | None:
        """The container's memory limit."""
        limits = amounts((self.launch.container.get("resources") or {}).get("limits"))
        return limits.get("memory")

    @property
    def shared_memory(self) -> int:
        """Size of /dev/shm; 64 MiB unless a memory volume is mounted there."""
        mounts = {mount["name"] for mount in self.launch.container.get("volumeMounts") or []
                  if mount["mountPath"].rstrip("/") == "/dev/shm"}  # noqa: S108  # fmt: skip
        for volume in self.launch.pod["spec"].get("volumes") or []:
            if volume["name"] in mounts and (volume.get("emptyDir") or {}).get("medium") == "Memory":
                size = (volume["emptyDir"]).get("sizeLimit")
                return amounts({"size": size})["size"] if size else GIB
        return 64 << 20

    @property
    def needs_cuda_13(self) -> bool:
        """Whether the image's CUDA wants a driver of at least 580."""
        tag = split(self.launch.image)[1]
        if "cu12" in tag or self.on_cpu or _for_other_vendors(self.launch.image):
            return False
        version = [int(part) for part in re.findall(r"\d+", tag)[:3]]
        first = {"vllm": [0, 22], "sglang": [0, 5, 20], "trtllm": [1, 3]}[self.options.runtime]
        return not version or version >= first


def runtime_of(launch: Launch) -> str | None:
    """Which runtime an image is, None for others."""
    repository = split(launch.image)[0].lower()
    for word, runtime in (
        ("vllm", "vllm"),
        ("sglang", "sglang"),
        ("tensorrt-llm", "trtllm"),
        ("tensorrt_llm", "trtllm"),
    ):
        if word in repository:
            return runtime
    return None


def inspect(launch: Launch, runtime: str) -> Situation:
    """Look at a container of a runtime's image."""
    options = parse(runtime, _arguments(runtime, launch.command))
    devices = visible_devices(launch.pod, launch.machine, launch.devices)
    if launch.machine.devices and not launch.machine.nvidia and _for_other_vendors(launch.image):
        devices = [device for device in launch.devices if not device.lost]
    cards = chosen_cards(launch.pod)
    memory = devices[0].model.memory_mib << 20 if devices else 0
    uncontrolled = launch.env.get("CUDA_DISABLE_CONTROL", "").lower() == "true"
    sliced = False
    if devices and devices[0].uuid in cards and not uncontrolled:
        mib = cards[devices[0].uuid][0]
        sliced = mib < devices[0].model.memory_mib
        memory = mib << 20
    return Situation(
        launch=launch,
        options=options,
        model=MODELS.get(options.model),
        devices=devices,
        on_cpu="cpu" in split(launch.image)[0] or "xeon" in split(launch.image)[1],
        device_memory=memory,
        sliced=sliced,
    )


def _for_other_vendors(image: str) -> bool:
    return any(word in image for word in ("rocm", "gaudi", "hpu"))


def _arguments(runtime: str, command: list[str]) -> list[str]:
    """The words after the program itself, whether or not the image's entrypoint is spelled out."""
    words = list(command)
    if len(words) >= 3 and words[0].rsplit("/", 1)[-1] in ("sh", "bash") and words[1].startswith("-"):
        words = words[2].split()
    starts = {"vllm": ("serve",), "sglang": ("sglang.launch_server",), "trtllm": ("trtllm-serve", "serve")}[runtime]
    for index, word in enumerate(words[:6]):
        if word in starts:
            return words[index + 1 :]
    if "vllm.entrypoints.openai.api_server" in words:
        return words[words.index("vllm.entrypoints.openai.api_server") + 1 :]
    return words
