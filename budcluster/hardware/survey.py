"""Reads from a cluster what the hardware profile is made of. All lists are raw JSON, page by page."""

from typing import Any, Final

from budcluster.hardware.profile import HardwareProfile
from budcluster.hardware.reader import read_cluster
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Forbidden, NotFound
from budcluster.kube.resources import NODES, PODS, Resource

NODE_FEATURES: Final = Resource("nfd.k8s-sigs.io", "v1alpha1", "nodefeatures")
NVIDIA_PCI: Final = ("pci-10de.present", "pci-0302_10de.present", "pci-0300_10de.present")
LIVE_PODS: Final = "status.phase!=Succeeded,status.phase!=Failed"


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


async def nvidia_nodes(client: ClusterClient) -> list[str]:
    """Names of the nodes with an NVIDIA device on their bus, as Node Feature Discovery labels them."""
    names: dict[str, None] = {}
    for label in NVIDIA_PCI:
        selector = f"feature.node.kubernetes.io/{label}=true"
        names |= dict.fromkeys(node["metadata"]["name"] for node in await _all(client, NODES, label_selector=selector))
    return list(names)


async def _all(
    client: ClusterClient, resource: Resource, *, label_selector: str = "", field_selector: str = ""
) -> list[dict[str, Any]]:
    pages = client.list_pages(resource, label_selector=label_selector, field_selector=field_selector)
    return [item async for page in pages for item in page["items"]]
