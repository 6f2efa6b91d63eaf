"""What events say of volumes: of claims that get none, and of pods that cannot mount theirs."""

from collections.abc import Iterator, Mapping
from typing import Any

from budcluster.kube.diagnosis.finding import Finding, Weight


def claims_of(pod: Mapping[str, Any]) -> Iterator[str]:
    """Names of the claims that a pod uses."""
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        if name := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
            yield str(name)


def explain_claim(reason: str, message: str) -> Finding | None:
    """Why a claim gets no volume, from an event of the claim; None where waiting is normal."""
    if reason not in {"FailedBinding", "ProvisioningFailed"}:
        return None
    lowered = message.lower()
    if "no storage class is set" in lowered:
        return Finding(
            "storage-class-missing", "The model cache's claim names no storage class, and the cluster has no default.",
            "Set cache.storage_class, mark a storage class as the default, or use cache mode emptyDir.", Weight.CAUSE,
            lines=(message,),
        )  # fmt: skip
    if "storageclass" in lowered and "not found" in lowered:
        return Finding(
            "storage-class-missing", "The cluster has no storage class of the name that the model cache's claim gives.",
            "Correct cache.storage_class, or make that storage class.", Weight.CAUSE, lines=(message,),
        )  # fmt: skip
    return Finding(
        "volume-not-provisioned", "The storage class makes no volume for the model cache.",
        "Read its driver's message below.", Weight.CAUSE, lines=(message,),
    )  # fmt: skip


def explain_mount(message: str) -> Finding:
    """Why a volume does not reach the pod's node."""
    if "multi-attach" in message.lower():
        return Finding(
            "volume-in-use", "The model cache's volume is held by another node.",
            "Use one replica with this cache, or a cache that several nodes can mount.", Weight.CAUSE, lines=(message,),
        )  # fmt: skip
    return Finding("volume-mount", "A volume of the pod cannot be mounted.", "Read the message below.", Weight.LIKELY,
                   lines=(message,))  # fmt: skip
