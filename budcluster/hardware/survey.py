"""Reads from a cluster what the hardware profile is made of. All lists are raw JSON, page by page."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from budcluster.hardware.reading.labels import accelerator_vendors
from budcluster.hardware.reading.nvidia import VENDOR_ID
from budcluster.hardware.reading.profile import HardwareProfile
from budcluster.hardware.reading.reader import read_in_turns
from budcluster.hardware.reading.trimming import trim_feature, trim_node, trim_pod
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Forbidden, NotFound
from budcluster.kube.resources import NODES, PODS, Resource

NODE_FEATURES: Final = Resource("nfd.k8s-sigs.io", "v1alpha1", "nodefeatures")
_TURN: Final = 50
"""Objects handled before other tasks get their turn: a few milliseconds."""
LIVE_PODS: Final = "status.phase!=Succeeded,status.phase!=Failed"
NVIDIA: Final = "nvidia.com/"
"""How names of NVIDIA's resources begin."""
_POLL_S: Final = 1.0
_PRESENT: Final = "nvidia.com/gpu.present"

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
        or any(name.startswith(NVIDIA) and str(amount) != "0" for name, amount in offered.items())
    )


def pause_after(look_s: float) -> float:
    """Seconds until the next look at nodes: thousands of them are long lists, to be read less often."""
    return max(_POLL_S, 2 * look_s)


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
