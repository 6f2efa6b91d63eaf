"""Image registries: which references exist, how large they are, and what kubelet says when a pull fails.

Texts are containerd's and registries' as quoted in Kubernetes issues; wording differs between registries.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

from sandbox.kubernetes.simulation.world import World

_SIZES_MIB = (
    ("vllm/vllm-openai-cpu", 1800),
    ("vllm/vllm-openai", 9800),
    ("lmsysorg/sglang", 12500),
    ("tensorrt-llm", 22000),
    ("nvidia/driver", 900),
    ("k8s-device-plugin", 220),
    ("dcgm-exporter", 480),
    ("gpu-operator", 260),
    ("hami", 180),
    ("prometheus", 110),
)
_TAGS = {
    "vllm/vllm-openai": r"(v0\.(1[0-9]|2[0-9]|3[0-3])\.\d+(\.\w+)?|latest|nightly)(-cu12\d)?",
    "vllm/vllm-openai-cpu": r"v0\.\d+\.\d+(-x86_64)?|latest(-x86_64)?",
    "vllm/vllm-openai-rocm": r"v0\.\d+\.\d+|latest",
    "lmsysorg/sglang": r"v0\.(4|5)\.\d+(\.post\d+)?(-cu12\d|-cu13\d|-xeon|-rocm[\w.-]+)?|latest",
    "nvcr.io/nvidia/tensorrt-llm/release": r"1\.\d+\.\d+(rc\d+(\.post\d+)?)?|0\.2[01]\.\d+",
}
_DOCKER_HUB = "docker.io/"


@dataclass(frozen=True)
class Pull:
    """The outcome of one pull: seconds it takes, size, and the error text when it fails."""

    seconds: float
    size_bytes: int
    error: str = ""


def pull(image: str, world: World) -> Pull:
    """What pulling would do."""
    repository, tag, _ = split(image)
    if missing(image, world):
        reference = f"{_full(repository)}:{tag or 'latest'}"
        return Pull(1.0, 0, (
            f'Failed to pull image "{image}": rpc error: code = NotFound desc = failed to pull and unpack image '
            f'"{reference}": failed to resolve reference "{reference}": {reference}: not found'
        ))  # fmt: skip
    size = next((mib for part, mib in _SIZES_MIB if part in repository), 40)
    return Pull(0.4 + size / world.settings.network_mib_s, size << 20)


def missing(image: str, world: World) -> bool:
    """Whether no registry has the reference: an order by glob, a telling tag, or an unknown tag of a known runtime."""
    repository, tag, digest = split(image)
    if any(fnmatch.fnmatch(image, pattern) for pattern in world.missing_images):
        return True
    if tag in ("missing", "does-not-exist", "no-such-tag"):
        return True
    known = _TAGS.get(repository.removeprefix(_DOCKER_HUB))
    return known is not None and not digest and re.fullmatch(known, tag or "latest") is None


def split(image: str) -> tuple[str, str, str]:
    """Repository, tag and digest of a reference."""
    name, _, digest = image.partition("@")
    head, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        return head, tag, digest
    return name, "", digest


def is_valid(image: str) -> bool:
    """Whether the reference parses at all; otherwise kubelet says InvalidImageName."""
    return re.fullmatch(r"[a-z0-9][\w./:@-]*", split(image)[0] or "") is not None and image == image.strip()


def _full(repository: str) -> str:
    first = repository.split("/", 1)[0]
    if "." in first or ":" in first or first == "localhost":
        return repository
    return f"{_DOCKER_HUB}{repository}" if "/" in repository else f"{_DOCKER_HUB}library/{repository}"
