"""Reads from a cluster what the hardware profile is made of. All lists are raw JSON, page by page."""

from collections.abc import Mapping
from typing import Any, Final

from budcluster.hardware.labels import accelerator_vendors
from budcluster.hardware.nvidia import VENDOR_ID
from budcluster.hardware.pods import read_pod
from budcluster.hardware.profile import HardwareProfile
from budcluster.hardware.reader import read_cluster
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Forbidden, NotFound
from budcluster.kube.resources import NODES, PODS, Resource

Json = dict[str, Any]

NODE_FEATURES: Final = Resource("nfd.k8s-sigs.io", "v1alpha1", "nodefeatures")
LIVE_PODS: Final = "status.phase!=Succeeded,status.phase!=Failed"
_NVIDIA: Final = "nvidia.com/"
_PRESENT: Final = "nvidia.com/gpu.present"


async def survey(client: ClusterClient) -> HardwareProfile:
    """The profile as of now. Raises KubeError."""
    nodes = await _all(client, NODES)
    pods = await _all(client, PODS, field_selector=LIVE_PODS)
    gaps: tuple[str, ...] = ()
    try:
        features = await _all(client, NODE_FEATURES)
    except (NotFound, Forbidden):
        features = []
        gaps = ("Node Feature Discovery's objects cannot be read; devices were counted from labels and resources",)
    profile = read_cluster(nodes, features=features, pods=pods)
    return HardwareProfile(profile.summary, profile.nodes, gaps)


async def nvidia_nodes(client: ClusterClient) -> list[Json]:
    """The nodes with an NVIDIA GPU, whoever tells so. Raises KubeError."""
    return [node async for page in client.list_pages(NODES) for node in page["items"] if has_nvidia(node)]


def has_nvidia(node: Mapping[str, Any]) -> bool:
    """Whether a node has an NVIDIA GPU: by the PCI labels of any NFD, the operator's own, or what a plugin offers."""
    labels = (node.get("metadata") or {}).get("labels") or {}
    offered = (node.get("status") or {}).get("allocatable") or {}
    return (
        VENDOR_ID in accelerator_vendors(labels)
        or labels.get(_PRESENT) == "true"
        or any(name.startswith(_NVIDIA) for name in offered)
    )


async def gpu_holders(client: ClusterClient) -> list[str]:
    """Live pods that were given NVIDIA GPUs, as `namespace/name`. Raises KubeError."""
    return [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        async for page in client.list_pages(PODS, field_selector=LIVE_PODS)
        for pod in page["items"]
        if holds_nvidia(pod)
    ]


def holds_nvidia(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has a node and asked it for an NVIDIA resource."""
    asked = read_pod(pod).resources if (pod.get("spec") or {}).get("nodeName") else {}
    return any(name.startswith(_NVIDIA) and amount > 0 for name, amount in asked.items())


async def _all(client: ClusterClient, resource: Resource, *, field_selector: str = "") -> list[Json]:
    pages = client.list_pages(resource, field_selector=field_selector)
    return [item async for page in pages for item in page["items"]]
