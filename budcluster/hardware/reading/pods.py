"""What live pods hold of a node, counted as the scheduler counts (Kubernetes 1.36, resource requests of a pod)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from budcluster.hardware.reading.hami_annotations import Allocation, read_allocations
from budcluster.hardware.reading.labels import MOST
from budcluster.hardware.reading.profile import PoolUse
from budcluster.kube.quantities import InvalidQuantity
from budcluster.kube.quantities import parse as parse_quantity

_OVER: Final = {"Succeeded", "Failed"}


@dataclass(frozen=True, slots=True)
class PodRequest:
    """One live pod on a node: what it asked for, and the devices that HAMi gave it."""

    namespace: str
    name: str
    resources: Mapping[str, float]
    allocations: tuple[Allocation, ...]

    def devices(self, resource: str) -> int:
        """How many of an extended resource it holds."""
        return int(self.resources.get(resource, 0))


def holders(pods: Iterable[PodRequest], resource: str) -> tuple[PoolUse, ...]:
    """The pods that hold some of an extended resource, with how much."""
    return tuple(PoolUse(pod.namespace, pod.name, held) for pod in pods if (held := pod.devices(resource)))


def by_node(pods: Iterable[Mapping[str, Any]]) -> dict[str, list[PodRequest]]:
    """Live pods that have a node, by its name."""
    found: dict[str, list[PodRequest]] = defaultdict(list)
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node and not is_over(pod):
            found[node].append(read_pod(pod))
    return dict(found)


def is_over(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has ended and holds nothing any more."""
    return (pod.get("status") or {}).get("phase") in _OVER


def read_pod(pod: Mapping[str, Any]) -> PodRequest:
    """Requests of one pod: the larger of its containers' sum and its largest init container, plus overhead."""
    spec, metadata = pod.get("spec") or {}, pod.get("metadata") or {}
    running: dict[str, float] = defaultdict(float)
    starting: dict[str, float] = defaultdict(float)
    for container in spec.get("containers") or ():
        _add(running, _requests(container))
    for container in spec.get("initContainers") or ():
        asked = _requests(container)
        if container.get("restartPolicy") == "Always":
            _add(running, asked)
        else:
            for name, amount in asked.items():
                starting[name] = max(starting[name], amount)
    total = {name: max(running.get(name, 0), starting.get(name, 0)) for name in {*running, *starting}}
    _add(total, _amounts(spec.get("overhead") or {}))
    annotations = metadata.get("annotations") or {}
    return PodRequest(
        str(metadata.get("namespace", "")), str(metadata.get("name", "")), total, read_allocations(annotations)
    )


def _requests(container: Mapping[str, Any]) -> dict[str, float]:
    resources = container.get("resources") or {}
    # A limit without a request is a request; for extended resources that is the usual way of writing it.
    return {**_amounts(resources.get("limits") or {}), **_amounts(resources.get("requests") or {})}


def _amounts(values: Mapping[str, Any]) -> dict[str, float]:
    amounts = {}
    for name, text in values.items():
        try:
            # The API server admits any amount: "9Ei" on a pod that waits for ever must not spoil the sum of the others.
            amounts[name] = min(max(0.0, float(parse_quantity(str(text)))), MOST)
        except InvalidQuantity:
            continue  # the API server admits none; a pod from elsewhere must not stop the count of the others
    return amounts


def _add(total: dict[str, float], amounts: Mapping[str, float]) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + amount
