"""Node Feature Discovery 0.19: labels nodes with what they have. How it is installed, and when it has finished."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from budcluster.config import AddonSettings
from budcluster.hardware.addons import Addon, Surroundings
from budcluster.hardware.models import AddonName
from budcluster.hardware.reading.reader import DETECTED
from budcluster.hardware.reading.readiness import is_ready
from budcluster.hardware.rollout import broken, listed
from budcluster.hardware.survey import NODE_FEATURES, pause_after
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Forbidden, NotFound
from budcluster.kube.resources import DAEMON_SETS, NODES, PODS
from budcluster.kube.workloads import is_observed, present_pods

_WORKERS: Final = "role=worker,app.kubernetes.io/name=node-feature-discovery"
_NAMED: Final = 5
"""Nodes named in a summary; the operation's log names every one."""
_REPORTER: Final = "nfd.node.kubernetes.io/worker.pod.uid"
"""On a NodeFeature: the pod that last completed discovery (NFD 0.19 and newer)."""


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
        values=partial(_values, settings.image_registry),
        marks=("app.kubernetes.io/name=node-feature-discovery",),
        privileged=True,
    )


def _values(registry: str | None, _: Surroundings) -> Mapping[str, Any]:
    return {
        **({"image": {"repository": f"{registry}/nfd/node-feature-discovery"}} if registry else {}),
        "worker": {
            # By default its workers tolerate nothing, and GPU nodes are mostly tainted.
            "tolerations": [{"operator": "Exists"}],
            "config": {
                # Network cards (02) are not in the default list: they show RDMA.
                "sources": {"pci": {"deviceClassWhitelist": ["02", "03", "0b40", "12"]}},
            },
        },
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

    def said(self, timeout_s: float) -> str:
        """A summary for people; it counts every node of the cluster, those too that discovery does not reach."""
        total = len(self.covered) + len(self.missing) + len(self.not_covered)
        said = f"{len(self.covered)} of {total} nodes were detected."
        if self.missing:
            said += f" Not within {timeout_s:.0f} s: {_some(self.missing, ', ')}."
        if self.not_covered:
            said += f" Not covered: {_some(self.not_covered, '; ')}."
        return said


def _some(names: Sequence[str], separator: str) -> str:
    rest = len(names) - _NAMED
    return separator.join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


async def wait_until_detected(
    client: ClusterClient, *, timeout_s: float, on_progress: Callable[[int, int], None]
) -> Detection:
    """Wait until the worker that runs on each ready node now has reported, and the master has written that down.

    At most `timeout_s` seconds. A worker reports every minute, so what is read afterwards is at most that old.
    `on_progress` is told how many of how many nodes are done. Raises KubeError.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout_s
    while True:
        began = clock()
        detection = await _look(client)
        expected = len(detection.covered) + len(detection.missing)
        on_progress(len(detection.covered), expected)
        if detection.is_complete or clock() >= deadline:
            return detection
        await asyncio.sleep(pause_after(clock() - began))


async def _look(client: ClusterClient) -> Detection:
    return judge(
        nodes=await listed(client, NODES),
        workers=await listed(client, PODS, label_selector=_WORKERS),
        daemon_sets=await listed(client, DAEMON_SETS, label_selector=_WORKERS),
        reporters=await _reporters(client),
    )


async def _reporters(client: ClusterClient) -> dict[str, str | None]:
    """By node, the uid of the worker that last completed discovery there, where discovery tells."""
    try:
        return {
            str(feature["metadata"]["name"]): (feature["metadata"].get("annotations") or {}).get(_REPORTER)
            async for page in client.list_pages(NODE_FEATURES)
            for feature in page["items"]
        }
    except (NotFound, Forbidden):
        return {}  # an older discovery has no such objects


def judge(
    *,
    nodes: Iterable[Mapping[str, Any]],
    workers: Sequence[Mapping[str, Any]] = (),
    daemon_sets: Sequence[Mapping[str, Any]] = (),
    reporters: Mapping[str, str | None] | None = None,
) -> Detection:
    """How far discovery is. `workers` are its pods, `reporters` by node the uid of the one that reported last."""
    by_node = {_node_of(pod): pod for pod in workers}
    failed = {_node_of(pod): found for pod in present_pods(daemon_sets, (), workers) for found in broken([pod])}
    reporters = reporters or {}
    is_settled = all(map(_has_placed_all, daemon_sets))
    covered, missing, not_covered = [], [], []
    for node in nodes:
        name = str(node["metadata"]["name"])
        worker = by_node.get(name)
        if not is_ready(node):
            not_covered.append(f"{name}: it is not ready")
        elif worker is None and by_node and is_settled:
            not_covered.append(f"{name}: no worker of Node Feature Discovery runs there{_because_of_taints(node)}")
        elif name in failed:
            not_covered.append(f"{name}: {failed[name]}")
        elif DETECTED in (node["metadata"].get("annotations") or {}) and _has_reported(worker, reporters.get(name)):
            covered.append(name)
        else:
            missing.append(name)
    return Detection(tuple(covered), tuple(missing), tuple(not_covered))


def _node_of(pod: Mapping[str, Any]) -> str:
    return str((pod.get("spec") or {}).get("nodeName"))


def _has_reported(worker: Mapping[str, Any] | None, reporter: str | None) -> bool:
    """Whether the worker of now is the one that reported; discoveries that do not tell are taken at their word."""
    return worker is None or reporter is None or worker["metadata"].get("uid") == reporter


def _has_placed_all(daemon_set: Mapping[str, Any]) -> bool:
    status = daemon_set.get("status") or {}
    is_placed = status.get("updatedNumberScheduled", 0) >= status.get("desiredNumberScheduled", 0)
    return is_observed(daemon_set) and bool(is_placed)


def _because_of_taints(node: Mapping[str, Any]) -> str:
    taints = [
        f"{taint.get('key')}={taint.get('value', '')}:{taint.get('effect')}"
        for taint in (node.get("spec") or {}).get("taints") or ()
        if taint.get("effect") in {"NoSchedule", "NoExecute"}
    ]
    return f"; it is tainted with {', '.join(taints)[:300]}" if taints else ""
