"""Cuts nodes, NodeFeatures and pods down to what the readers of this package look at. Pure; never raises.

What is left is small (about 2 KB of a node's 10), bounded whatever somebody wrote into labels, and does not change with
the heartbeats of a kubelet: two equal trimmed objects mean that nothing happened.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from budcluster.hardware.reading import hami_annotations
from budcluster.hardware.reading.cpu import WANTED_FLAGS
from budcluster.hardware.reading.labels import ACCELERATOR_CLASSES, FEATURE
from budcluster.hardware.reading.reader import DETECTED

Json = Mapping[str, Any]

_LABELS: Final = (
    "nvidia.com/",
    "amd.com/gpu",
    "gpu.intel.com/",
    "habana.ai/",
    "kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    FEATURE + "pci-",
    FEATURE + "network-sriov.capable",
    FEATURE + "custom-rdma.capable",
    FEATURE + "cpu-model.",
    FEATURE + "cpu-hardware_multithreading",
    *(f"{FEATURE}cpu-cpuid.{flag}" for flag in WANTED_FLAGS),
)
_RESOURCES: Final = ("nvidia.com/", "amd.com/", "gpu.intel.com/", "habana.ai/")
_AMOUNTS: Final = ("cpu", "memory", *_RESOURCES)
_MOST_ENTRIES: Final = 256
_LONGEST_VALUE: Final = 80
"""Longer than any label value may be, so that the readers still see that it was too long."""
_LONGEST_ANNOTATION: Final = hami_annotations.MAX_ANNOTATION_BYTES + 1
_INFO: Final = ("architecture", "osImage", "kernelVersion", "kubeletVersion")
_RELEASE: Final = "app.kubernetes.io/instance"


def digest_of(*parts: object) -> bytes:
    """Sixteen bytes that tell one trimmed object from another."""
    return hashlib.blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def trim_node(node: Json) -> dict[str, Any]:
    """A node for `reader.read_node`."""
    metadata, spec, status = (_mapping(node.get(part)) for part in ("metadata", "spec", "status"))
    taints = [
        {"key": _text(taint.get("key", ""), 320), "effect": _text(taint.get("effect", ""), 32)}
        for taint in _mappings(spec.get("taints"))
    ]
    return {
        "metadata": {
            "name": metadata.get("name"),
            "labels": _values(metadata.get("labels"), _LABELS),
            "annotations": _node_annotations(_mapping(metadata.get("annotations"))),
        },
        "spec": {"taints": taints[:_MOST_ENTRIES], "unschedulable": spec.get("unschedulable") is True},
        "status": {
            "capacity": _values(status.get("capacity"), _AMOUNTS),
            "allocatable": _values(status.get("allocatable"), _AMOUNTS),
            "conditions": [
                {name: _text(condition.get(name, "")) for name in ("type", "status", "reason")}
                for condition in _mappings(status.get("conditions"))
            ][:_MOST_ENTRIES],
            "nodeInfo": {
                name: _text(value, 200) for name, value in _mapping(status.get("nodeInfo")).items() if name in _INFO
            },
        },
    }


def trim_feature(feature: Json) -> dict[str, Any]:
    """A NodeFeature object for `reader.read_node`: its accelerators and its NUMA nodes."""
    features = _mapping(_mapping(feature.get("spec")).get("features"))
    devices = _mapping(_mapping(features.get("instances")).get("pci.device")).get("elements")
    attributes = [_mapping(element.get("attributes")) for element in _mappings(devices)]
    numa = _mapping(_mapping(_mapping(features.get("attributes")).get("memory.numa")).get("elements"))
    elements = [
        {"attributes": {name: _text(found.get(name, ""), 16) for name in ("class", "vendor", "device")}}
        for found in attributes
        if str(found.get("class", "")).startswith(ACCELERATOR_CLASSES)
    ]
    return {
        "spec": {
            "features": {
                "instances": {"pci.device": {"elements": elements[:_MOST_ENTRIES]}},
                "attributes": {"memory.numa": {"elements": {"node_count": _text(numa.get("node_count", ""), 16)}}},
            }
        }
    }


def trim_pod(pod: Json) -> dict[str, Any] | None:
    """A pod for `pods.read_pod`; None for one that has nothing to do with accelerators."""
    metadata, spec = _mapping(pod.get("metadata")), _mapping(pod.get("spec"))
    allocated = _mapping(metadata.get("annotations")).get(hami_annotations.ALLOCATED)
    containers = [_container(one) for one in _mappings(spec.get("containers"))]
    starting = [_container(one) for one in _mappings(spec.get("initContainers"))]
    if allocated is None and not any(_asks_for_devices(container) for container in (*containers, *starting)):
        return None
    annotations = {} if allocated is None else {hami_annotations.ALLOCATED: _text(allocated, _LONGEST_ANNOTATION)}
    return {
        "metadata": {
            "namespace": metadata.get("namespace"),
            "name": metadata.get("name"),
            "uid": metadata.get("uid"),
            "annotations": annotations,
        },
        "spec": {
            "nodeName": spec.get("nodeName"),
            "containers": containers,
            "initContainers": starting,
            "overhead": _values(spec.get("overhead"), _AMOUNTS),
        },
        "status": {"phase": _text(_mapping(pod.get("status")).get("phase") or "Unknown", 16)},
    }


def release_of(pod: Json) -> str | None:
    """The Helm release that a pod says it belongs to."""
    name = _mapping(_mapping(pod.get("metadata")).get("labels")).get(_RELEASE)
    return _text(name, 63) if name else None


def _node_annotations(annotations: Json) -> dict[str, str]:
    # Its value is a long list of labels; what counts is that it is there.
    kept = {DETECTED: ""} if DETECTED in annotations else {}
    for name in (hami_annotations.REGISTER, hami_annotations.CORDON):
        if isinstance(annotations.get(name), str):
            kept[name] = _text(annotations[name], _LONGEST_ANNOTATION)
    return kept


def _container(container: Json) -> dict[str, Any]:
    resources = _mapping(container.get("resources"))
    kept: dict[str, Any] = {
        "resources": {part: _values(resources.get(part), _AMOUNTS) for part in ("requests", "limits")}
    }
    if container.get("restartPolicy") == "Always":
        kept["restartPolicy"] = "Always"
    return kept


def _asks_for_devices(container: Json) -> bool:
    return any(name.startswith(_RESOURCES) for part in container["resources"].values() for name in part)


def _values(values: object, prefixes: tuple[str, ...]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in _mapping(values).items():
        if len(kept) == _MOST_ENTRIES:
            break
        if name.startswith(prefixes):
            kept[name[:320]] = _text(value)
    return kept


def _text(value: object, longest: int = _LONGEST_VALUE) -> str:
    # PostgreSQL's JSON cannot hold the NUL character.
    return str(value)[:longest].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
