"""From node objects, NodeFeature objects and pods as the API server returns them to a hardware profile. Pure."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from budcluster.hardware.reading.accelerators import read_others
from budcluster.hardware.reading.cpu import read_cpu
from budcluster.hardware.reading.labels import (
    ACCELERATOR_CLASSES,
    FEATURE,
    MOST_IN_SUM,
    Gaps,
    accelerator_vendors,
    quantity,
    text_label,
)
from budcluster.hardware.reading.nvidia import VENDOR_ID, NvidiaNode
from budcluster.hardware.reading.pods import PodRequest, by_node
from budcluster.hardware.reading.profile import (
    ClusterSum,
    Gpu,
    GpuPool,
    GpuVendor,
    HardwareProfile,
    ModelSum,
    Network,
    NodeProfile,
)
from budcluster.hardware.reading.readiness import closing_taints, is_ready, why_not

DETECTED: Final = "nfd.node.kubernetes.io/feature-labels"
"""NFD's master sets this annotation when it has finished with a node (NFD 0.15 and newer)."""
_TURN: Final = 50
"""Nodes read before other tasks get their turn: about 10 ms."""
_NAMED: Final = 10

Json = Mapping[str, Any]


def read_cluster(nodes: Sequence[Json], *, features: Iterable[Json] = (), pods: Iterable[Json] = ()) -> HardwareProfile:
    """The whole cluster. `features` are NodeFeature objects; without them counts come from labels and resources."""
    profiles = tuple(_profiles(nodes, features, pods))
    return HardwareProfile(summarize(profiles), profiles, _coverage(nodes))


async def read_in_turns(nodes: Sequence[Json], *, features: Iterable[Json], pods: Iterable[Json]) -> HardwareProfile:
    """As `read_cluster`, for thousands of nodes: other tasks get their turn."""
    found = []
    for number, profile in enumerate(_profiles(nodes, features, pods)):
        found.append(profile)
        if number % _TURN == _TURN - 1:
            await asyncio.sleep(0)
    profiles = tuple(found)
    return HardwareProfile(summarize(profiles), profiles, _coverage(nodes))


def _profiles(nodes: Iterable[Json], features: Iterable[Json], pods: Iterable[Json]) -> Iterator[NodeProfile]:
    by_name = {str((feature.get("metadata") or {}).get("name")): feature for feature in features}
    requests = by_node(pods)
    for node in nodes:
        yield read_node(node, feature=by_name.get(_name(node)), pods=requests.get(_name(node), []))


def _coverage(nodes: Sequence[Json]) -> tuple[str, ...]:
    missing = [f"{_name(node)} ({reason})" for node in nodes if (reason := _undetected(node))]
    if not missing:
        return ()
    named = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    return (f"Node Feature Discovery has not finished on {len(missing)} of {len(nodes)} nodes: {named}",)


def _undetected(node: Json) -> str | None:
    """Why Node Feature Discovery has not finished with a node, as far as the node tells; None when it has."""
    if DETECTED in ((node.get("metadata") or {}).get("annotations") or {}):
        return None
    if not is_ready(node):
        return "it is not ready"
    if taints := closing_taints(node):
        return f"its taint {', '.join(taints)} may keep the worker away"
    return "no worker has reported from there"


def read_node(node: Json, *, feature: Json | None = None, pods: list[PodRequest] | None = None) -> NodeProfile:
    """One node. Never raises on what anybody wrote into labels and annotations; what it cannot read becomes a gap."""
    gaps = Gaps()
    metadata, status = node.get("metadata") or {}, node.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    capacity, allocatable = status.get("capacity") or {}, status.get("allocatable") or {}
    info = status.get("nodeInfo") or {}
    reasons = why_not(node)
    undetected = _undetected(node)
    if undetected:
        so_far = "only what the node itself says is known"
        gaps.add(f"Node Feature Discovery has not finished on this node ({undetected}); {so_far}")
    gpus, pools = _accelerators(labels, annotations, allocatable, feature, pods or [], not reasons, gaps)
    return NodeProfile(
        name=_name(node),
        ready=is_ready(node),
        schedulable=not reasons,
        reasons=reasons,
        architecture=str(info.get("architecture") or labels.get("kubernetes.io/arch") or "unknown"),
        os=_optional(info.get("osImage")),
        kernel=_optional(info.get("kernelVersion")),
        kubelet=_optional(info.get("kubeletVersion")),
        instance_type=text_label(labels, "node.kubernetes.io/instance-type", gaps),
        zone=text_label(labels, "topology.kubernetes.io/zone", gaps),
        cpu=read_cpu(labels, capacity, allocatable, gaps),
        memory_bytes=int(quantity(capacity, "memory", gaps)),
        allocatable_memory_bytes=int(quantity(allocatable, "memory", gaps)),
        numa_nodes=_numa_nodes(feature),
        network=_network(labels, detected=undetected is None),
        driver=_first(labels, ("nvidia.com/cuda.driver-version.full", "amd.com/gpu.driver-version"), gaps)
        or _old_driver(labels, gaps),
        cuda=text_label(labels, "nvidia.com/cuda.runtime-version.full", gaps),
        gpus=gpus,
        pools=pools,
        gaps=gaps.all(),
    )


def summarize(nodes: tuple[NodeProfile, ...]) -> ClusterSum:
    """The sum over nodes; models are told apart by vendor, name and memory."""
    models: dict[tuple[GpuVendor, str | None, int | None], list[tuple[NodeProfile, Gpu]]] = defaultdict(list)
    for node in nodes:
        for gpu in node.gpus:
            models[gpu.vendor, gpu.model, gpu.memory_mib].append((node, gpu))
    return ClusterSum(
        nodes=len(nodes),
        nodes_ready=sum(node.ready for node in nodes),
        cpu_cores=sum(node.cpu.cores for node in nodes),
        memory_bytes=min(MOST_IN_SUM, sum(node.memory_bytes for node in nodes)),
        gpus=sum(len(node.gpus) for node in nodes),
        gpus_healthy=sum(gpu.healthy for node in nodes for gpu in node.gpus),
        by_model=tuple(_model_sum(key, found) for key, found in sorted(models.items(), key=lambda item: str(item[0]))),
    )


def _model_sum(key: tuple[GpuVendor, str | None, int | None], found: list[tuple[NodeProfile, Gpu]]) -> ModelSum:
    vendor, model, memory_mib = key
    nodes = {node.name: node for node, _ in found}
    pools = [pool for node in nodes.values() for pool in node.pools if pool.holds(found[0][1])]
    return ModelSum(
        vendor=vendor,
        model=model,
        memory_mib=memory_mib,
        nodes=len(nodes),
        physical=len(found),
        healthy=sum(gpu.healthy for _, gpu in found),
        advertised=sum(pool.advertised for pool in pools),
        free=sum(pool.free for pool in pools),
    )


def _accelerators(
    labels: Json,
    annotations: Json,
    allocatable: Json,
    feature: Json | None,
    pods: list[PodRequest],
    usable: bool,
    gaps: Gaps,
) -> tuple[tuple[Gpu, ...], tuple[GpuPool, ...]]:
    present = accelerator_vendors(labels)
    pci = _pci_devices(feature)
    gpus, pools = read_others(
        labels, allocatable, pci_devices=pci, present=present, pods=pods, usable=usable, gaps=gaps
    )
    if VENDOR_ID in present or VENDOR_ID in pci or any(key.startswith("nvidia.com/") for key in allocatable):
        nvidia = NvidiaNode(
            labels, annotations, allocatable, pci_devices=pci.get(VENDOR_ID), pods=pods, usable=usable, gaps=gaps
        )
        gpus, pools = nvidia.devices() + gpus, nvidia.pools() + pools
    return gpus, pools


def _pci_devices(feature: Json | None) -> dict[str, list[str]]:
    """Device ids of accelerators by PCI vendor id, as Node Feature Discovery counted them."""
    features = ((feature or {}).get("spec") or {}).get("features") or {}
    elements = ((features.get("instances") or {}).get("pci.device") or {}).get("elements") or ()
    found: dict[str, list[str]] = defaultdict(list)
    for element in elements:
        attributes = element.get("attributes") or {}
        if str(attributes.get("class", "")).startswith(ACCELERATOR_CLASSES):
            found[str(attributes.get("vendor", ""))].append(str(attributes.get("device", "")))
    return dict(found)


def _numa_nodes(feature: Json | None) -> int | None:
    features = ((feature or {}).get("spec") or {}).get("features") or {}
    elements = ((features.get("attributes") or {}).get("memory.numa") or {}).get("elements") or {}
    count = str(elements.get("node_count", ""))
    return int(count) if count.isascii() and count.isdecimal() and len(count) <= 4 else None


def _network(labels: Json, *, detected: bool) -> Network:
    def said(name: str) -> bool | None:
        return (labels.get(FEATURE + name) == "true") if detected else None

    return Network(sriov=said("network-sriov.capable"), rdma=said("custom-rdma.capable"))


def _old_driver(labels: Json, gaps: Gaps) -> str | None:
    parts = [text_label(labels, f"nvidia.com/cuda.driver.{part}", gaps) for part in ("major", "minor", "rev")]
    return ".".join(part for part in parts if part) or None


def _first(labels: Json, keys: tuple[str, ...], gaps: Gaps) -> str | None:
    return next((found for key in keys if (found := text_label(labels, key, gaps))), None)


def _optional(value: object) -> str | None:
    return str(value)[:200] if value else None


def _name(node: Json) -> str:
    return str((node.get("metadata") or {}).get("name", ""))
