"""Node Feature Discovery 0.19: labels nodes with what they have. How it is installed, and when it has finished."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from budcluster.config import AddonSettings
from budcluster.hardware.addons import Addon, Surroundings
from budcluster.hardware.models import AddonName
from budcluster.hardware.reader import DETECTED
from budcluster.hardware.readiness import is_ready
from budcluster.kube.client import ClusterClient
from budcluster.kube.resources import NODES, PODS

_POLL_S: Final = 1.0
_WORKERS: Final = "role=worker,app.kubernetes.io/name=node-feature-discovery"


def addon(settings: AddonSettings) -> Addon:
    """The add-on."""
    return Addon(
        name=AddonName.NFD,
        title="Node Feature Discovery",
        release="nfd",
        namespace="node-feature-discovery",
        chart="node-feature-discovery",
        version=settings.nfd_version,
        repository="oci://registry.k8s.io/nfd/charts",
        values=_values,
        marks=("app.kubernetes.io/name=node-feature-discovery",),
        privileged=True,
    )


def _values(_: Surroundings) -> Mapping[str, Any]:
    return {
        "worker": {
            # By default its workers tolerate nothing, and GPU nodes are mostly tainted.
            "tolerations": [{"operator": "Exists"}],
            "config": {
                # Network cards (02) are not in the default list: they show RDMA.
                "sources": {"pci": {"deviceClassWhitelist": ["02", "03", "0b40", "12"]}},
            },
        }
    }


@dataclass(frozen=True, slots=True)
class Detection:
    """How far discovery came."""

    covered: tuple[str, ...]
    missing: tuple[str, ...]
    """Nodes that were expected to be labelled and were not, in time."""
    not_covered: tuple[str, ...]
    """Nodes that discovery does not reach, with the reason; they were not waited for."""

    @property
    def is_complete(self) -> bool:
        """Whether every node that could be was."""
        return not self.missing


async def wait_until_detected(
    client: ClusterClient, *, timeout_s: float, on_progress: Callable[[int, int], None]
) -> Detection:
    """Wait until every ready node that a worker runs on carries the master's annotation, at most `timeout_s` seconds.

    `on_progress` is told how many of how many nodes are done. Raises KubeError.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        detection = await _look(client)
        expected = len(detection.covered) + len(detection.missing)
        on_progress(len(detection.covered), expected)
        if detection.is_complete or asyncio.get_running_loop().time() >= deadline:
            return detection
        await asyncio.sleep(_POLL_S)


async def _look(client: ClusterClient) -> Detection:
    workers = {
        (pod.get("spec") or {}).get("nodeName")
        async for page in client.list_pages(PODS, label_selector=_WORKERS)
        for pod in page["items"]
    }
    covered, missing, not_covered = [], [], []
    async for page in client.list_pages(NODES):
        for node in page["items"]:
            name = node["metadata"]["name"]
            if DETECTED in (node["metadata"].get("annotations") or {}):
                covered.append(name)
            elif not is_ready(node):
                not_covered.append(f"{name}: it is not ready")
            elif workers and name not in workers:
                not_covered.append(f"{name}: no worker of Node Feature Discovery runs there")
            else:
                missing.append(name)
    return Detection(tuple(covered), tuple(missing), tuple(not_covered))
