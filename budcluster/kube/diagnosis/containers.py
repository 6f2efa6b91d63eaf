"""Why a container does not start or run: its waiting reason, how it ended, and what the kubelet said of it."""

import re
from dataclasses import replace
from typing import Final

from budcluster.kube.diagnosis.finding import Finding, Weight
from budcluster.kube.diagnosis.images import explain_image

_CONFIG: Final[tuple[tuple[re.Pattern[str], str, str], ...]] = (
    (re.compile(r'secret "([^"]+)" not found'), "secret-missing", "the Secret {0} does not exist"),
    (re.compile(r"couldn't find key (\S+) in Secret (\S+)"), "secret-missing", "the Secret {1} has no key {0}"),
    (re.compile(r'configmap "([^"]+)" not found'), "config-missing", "the ConfigMap {0} does not exist"),
    (re.compile(r"image will run as root"), "runs-as-root", "the image runs as root, which the pod's policy forbids"),
)


def explain_waiting(reason: str, message: str) -> Finding | None:
    """The cause behind a waiting container; None where waiting is normal."""
    if found := explain_image(reason, message):
        return found
    match reason:
        case "CreateContainerConfigError":
            return _explain_config(message)
        case "CreateContainerError" | "RunContainerError":
            return explain_runtime(message)
        case _:
            return None


def _explain_config(message: str) -> Finding:
    for pattern, kind, detail in _CONFIG:
        if found := pattern.search(message):
            return Finding(kind, f"The container cannot be made: {detail.format(*found.groups())}.",
                           "Create it, or update the deployment so that it is made again.", Weight.CAUSE,
                           lines=(message,))  # fmt: skip
    return Finding("container-config", "The container cannot be made as it is configured.",
                   "Read the message below.", Weight.LIKELY, lines=(message,))  # fmt: skip


def explain_runtime(message: str) -> Finding:
    """Why the container runtime refuses: mostly the GPU's part of it."""
    lowered = message.lower()
    if "nvidia-container-cli" in lowered or "cdi device" in lowered:
        return Finding(
            "gpu-runtime-broken", "The node's NVIDIA container runtime does not work.",
            "Check driver and container toolkit of the node; the GPU operator's validator pods say which is broken.",
            Weight.CAUSE, lines=(message,),
        )  # fmt: skip
    if "no runtime for" in lowered or "runtimeclass" in lowered:
        return Finding(
            "runtime-class-missing", "The node has no container runtime of the class that the pod asks for.",
            "Install the GPU operator's toolkit there, or correct the runtime class.", Weight.CAUSE, lines=(message,),
        )  # fmt: skip
    if "executable file not found" in lowered or "no such file or directory: unknown" in lowered:
        return Finding(
            "bad-command", "The container's command does not exist in the image.", "Check the image and its command.",
            Weight.CAUSE, lines=(message,),
        )  # fmt: skip
    if "assign an ip address" in lowered or "setup network" in lowered:
        return Finding(
            "pod-network", "The pod gets no network address.", "The subnet may be out of addresses: add some.",
            Weight.CAUSE, lines=(message,),
        )  # fmt: skip
    return Finding("container-create", "The container runtime refuses the container.", "Read its message below.",
                   Weight.LIKELY, lines=(message,))  # fmt: skip


# Exit code -> type, detail, fix (POSIX signals above 128; container runtimes use 126 to 128 themselves).
_EXITS: Final[dict[int, tuple[str, str, str]]] = {
    126: ("bad-command", "The container's command cannot be executed.", "Check the image and its command."),
    127: ("bad-command", "The container's command does not exist in the image.", "Check the image and its command."),
    128: ("bad-command", "The container could not be started.", "Check the image and its command."),
    132: ("illegal-instruction", "The processor lacks an instruction that the image uses, often AVX-512.",
          "Use a node with a newer processor, or an image for this one."),
    139: ("segmentation-fault", "The runtime crashed with a segmentation fault.",
          "Look at its last lines; a newer image or driver often helps."),
}  # fmt: skip


def explain_exit(reason: str, exit_code: int, message: str) -> Finding | None:
    """What the way a container ended says by itself; None when only its log can tell."""
    if reason in {"StartError", "ContainerCannotRun"}:
        refused = explain_runtime(message)
        if refused.weight is Weight.CAUSE:
            return replace(refused, exit_code=exit_code)
    if reason == "OOMKilled":
        return Finding(
            "host-memory", "The container was killed because it used more host memory than its limit.",
            "Weights pass through host memory while they load: raise the memory limit, or use a node with more.",
            Weight.CAUSE, exit_code=exit_code,
        )  # fmt: skip
    if exit_code == 137:
        return Finding(
            "killed", "The container was killed: by a probe that gave up, or by the node running out of memory.",
            "If it was still loading, give it a longer startup timeout.", Weight.SYMPTOM, exit_code=exit_code,
        )  # fmt: skip
    if exit_code == 143:
        return Finding(
            "terminated", "The container was told to stop (SIGTERM), and stopped.",
            "A probe that gave up, a drained node or a deletion does that; the pod's events tell which.",
            Weight.SYMPTOM, exit_code=exit_code,
        )  # fmt: skip
    if exit_code in _EXITS:
        kind, detail, fix = _EXITS[exit_code]
        return Finding(kind, detail, fix, Weight.LIKELY, exit_code=exit_code)
    return None
