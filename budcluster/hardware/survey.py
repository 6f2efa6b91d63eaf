"""Reads from a cluster what the hardware profile is made of. All lists are raw JSON, page by page."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from budcluster.hardware.profile import HardwareProfile
from budcluster.hardware.reader import read_in_turns
from budcluster.hardware.trimming import trim_feature, trim_node, trim_pod
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Forbidden, NotFound
from budcluster.kube.resources import NODES, PODS, Resource

NODE_FEATURES: Final = Resource("nfd.k8s-sigs.io", "v1alpha1", "nodefeatures")
NVIDIA_PCI: Final = ("pci-10de.present", "pci-0302_10de.present", "pci-0300_10de.present")
_TURN: Final = 50
"""Objects handled before other tasks get their turn: a few milliseconds."""
LIVE_PODS: Final = "status.phase!=Succeeded,status.phase!=Failed"

Json = dict[str, Any]


async def survey(client: ClusterClient) -> HardwareProfile:
    """The profile as of now. Raises KubeError.

    Objects are cut down as they come, and other tasks get their turn: thousands of nodes are tens of megabytes raw.
    """
    nodes = await _each(client, NODES, trim_node)
    pods = await _each(client, PODS, trim_pod, field_selector=LIVE_PODS)
    gaps: tuple[str, ...] = ()
    features: list[Json] = []
    try:
        features = await _each(client, NODE_FEATURES, _named_feature)
    except (NotFound, Forbidden):
        gaps = ("Node Feature Discovery's objects cannot be read; devices were counted from labels and resources",)
    profile = await read_in_turns(nodes, features=features, pods=pods)
    return replace(profile, gaps=gaps + profile.gaps)


async def nvidia_nodes(client: ClusterClient) -> list[str]:
    """Names of the nodes with an NVIDIA device on their bus, as Node Feature Discovery labels them."""
    names: dict[str, None] = {}
    for label in NVIDIA_PCI:
        selector = f"feature.node.kubernetes.io/{label}=true"
        names |= dict.fromkeys(node["metadata"]["name"] for node in await _all(client, NODES, label_selector=selector))
    return list(names)


async def _each(
    client: ClusterClient, resource: Resource, trim: Callable[[Json], Json | None], *, field_selector: str = ""
) -> list[Json]:
    kept: list[Json] = []
    async for page in client.list_pages(resource, field_selector=field_selector):
        for number, item in enumerate(page["items"]):
            if (trimmed := trim(item)) is not None:
                kept.append(trimmed)
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
    return kept


def _named_feature(feature: Json) -> Json:
    return {"metadata": {"name": feature["metadata"]["name"]}, **trim_feature(feature)}


async def _all(
    client: ClusterClient, resource: Resource, *, label_selector: str = "", field_selector: str = ""
) -> list[dict[str, Any]]:
    pages = client.list_pages(resource, label_selector=label_selector, field_selector=field_selector)
    return [item async for page in pages for item in page["items"]]
