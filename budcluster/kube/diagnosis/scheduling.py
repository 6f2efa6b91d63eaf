"""Why the scheduler finds no node: FailedScheduling's text (Kubernetes 1.36, and the older wordings still met)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from budcluster.kube.diagnosis.finding import Finding, Weight

_HEAD: Final = re.compile(r"^0/(\d+) nodes are available:\s*")
_SPLIT: Final = re.compile(r"\.\s+|,\s+(?=\d+ )")
_COUNTED: Final = re.compile(r"(\d+) (.*)", re.DOTALL)
_INSUFFICIENT: Final = re.compile(r"Insufficient (\S+)")
_HAMI: Final = ("nvidia.com/gpumem", "nvidia.com/gpucores")
"""Resources that no node has: HAMi's scheduler takes them out of the pod before anybody counts them."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One part of the message; `nodes` is None where it speaks of the pod itself."""

    nodes: int | None
    text: str


def parse(message: str) -> list[Reason]:
    """The parts of a FailedScheduling message; empty when it is not one."""
    head = _HEAD.match(message)
    if head is None:
        return []
    rest = message[head.end() :].partition(" preemption: ")[0].rstrip().removesuffix(".")
    reasons = []
    for part in _SPLIT.split(rest):
        counted = _COUNTED.fullmatch(part.strip())
        reasons.append(Reason(int(counted[1]), counted[2]) if counted else Reason(None, part.strip()))
    return [reason for reason in reasons if reason.text]


_NOT_SELECTED: Final = "didn't match Pod's node affinity/selector"
WAITS_FOR_VOLUME: Final = frozenset({"volume-unbound"})
"""Findings that the events of the pod's claims may explain better."""

# Text -> type, what it means, what to do. The first that occurs in a reason wins.
_MEANINGS: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("unbound immediate PersistentVolumeClaims", "volume-unbound", "the model cache's volume has not been made",
     "check the storage class; without a default one set cache.storage_class, or use cache mode emptyDir"),
    ("persistentvolumeclaim", "volume-missing", "a volume claim that the pod names does not exist",
     "create the claim, or choose another cache mode"),
    ("volume node affinity", "volume-elsewhere", "the model cache's volume lies in another zone than the free nodes",
     "free a node in that zone, or delete the cache volume"),
    ("PersistentVolume's node affinity", "volume-elsewhere", "the model cache's volume is bound to other nodes",
     "free a node there, or delete the cache volume"),
    ("persistent volumes to bind", "volume-unbound", "no volume fits the claim",
     "check the storage class and its size"),
    ("binding volumes", "volume-unbound", "no volume was made for the model cache in time",
     "check the storage class and its driver"),
    ("ReadWriteOncePod", "volume-in-use", "another pod holds the model cache's volume",
     "wait until that pod is gone, or use a cache that several pods can mount"),
    ("enough free storage", "storage-full", "the storage behind the nodes has too little room for the model cache",
     "ask for a smaller cache, or add storage"),
    ("max volume count", "volume-limit", "the node cannot attach more volumes", "use another node or cache mode"),
    ("Too many pods", "pod-slots-full", "the nodes hold as many pods as they may", "add a node, or raise max pods"),
    ("untolerated taint", "taint", "the free nodes have taints that the pod does not tolerate",
     "remove the taint, or use a pool without it"),
    ("that the pod didn't tolerate", "taint", "the free nodes have taints that the pod does not tolerate",
     "remove the taint, or use a pool without it"),
    (_NOT_SELECTED, "no-matching-node", "no node has the GPU model that was asked for",
     "ask for a model that GET /clusters/{id}/gpus lists, or for none"),
    ("were unschedulable", "nodes-cordoned", "the nodes that would fit are cordoned", "uncordon a node"),
    ("topology spread constraints", "spread", "the replicas cannot be spread any further", "add a node"),
    ("pod affinity rules", "pod-affinity", "the pod must be beside other pods, and no node with them has room",
     "make room on those nodes, or relax the affinity"),
    ("anti-affinity rules", "pod-anti-affinity", "the nodes hold pods that this one must not be beside",
     "add a node, or relax the anti-affinity"),
    ("free ports", "port-taken", "a host port is taken on the nodes", "free the port"),
    ("allocate all claims", "device-claims", "the devices that the pod claims cannot be allocated", "free a device"),
    ("unknown conditions", "nodes-not-ready", "the nodes that would fit are not ready", "look at the nodes' health"),
)  # fmt: skip


def explain(message: str) -> Finding:
    """The cause behind a FailedScheduling event: one of its reasons, with the others as evidence."""
    reasons = parse(message) or [Reason(None, message)]
    main = _main(reasons)
    lines = tuple(f"{reason.nodes} {reason.text}" if reason.nodes else reason.text for reason in reasons[:8])
    if insufficient := _INSUFFICIENT.search(main.text):
        return _insufficient(insufficient[1].rstrip(".,"), lines)
    for text, kind, detail, fix in _MEANINGS:
        if text in main.text:
            return Finding(kind, f"No node takes the pod: {detail}.", f"{fix[0].upper()}{fix[1:]}.", Weight.CAUSE,
                           lines=lines)  # fmt: skip
    return Finding(
        "unschedulable", "No node takes the pod.", "Read the scheduler's reasons below.", Weight.LIKELY, lines=lines
    )


def _main(reasons: Sequence[Reason]) -> Reason:
    """What concerns the pod itself; else what concerns most nodes, of equals the accelerator."""
    if reasons[0].nodes is None:
        return reasons[0]
    # Nodes that the pod does not want were never candidates: they are the cause only where there are no others.
    candidates = [reason for reason in reasons if _NOT_SELECTED not in reason.text] or reasons
    return max(candidates, key=lambda reason: (reason.nodes or 0, _scarcity(reason.text)))


def _scarcity(text: str) -> int:
    found = _INSUFFICIENT.search(text)
    if found is None:
        return 0
    return 2 if found[1].startswith(_HAMI) else int("/" in found[1])


def _insufficient(resource: str, lines: tuple[str, ...]) -> Finding:
    if resource.startswith(_HAMI):
        return Finding(
            "hami-scheduler-missing",
            f"The default scheduler was asked for {resource}, which only HAMi's scheduler knows.",
            "HAMi's webhook or scheduler is not running: POST /clusters/{id}/install-hami repairs it.",
            Weight.CAUSE,
            lines=lines,
        )
    kinds = {"cpu": "cpu-full", "memory": "memory-full", "ephemeral-storage": "disk-full"}
    kind = kinds.get(resource, "gpu-full" if "/" in resource else "resource-full")
    what = "GPU" if kind == "gpu-full" else resource
    return Finding(
        kind,
        f"No node has enough free {what} ({resource}).",
        "Scale down or delete another deployment, ask for less, or add nodes; a dry run names what would fit.",
        Weight.CAUSE,
        lines=lines,
    )
