"""From a deployment's plan to the values of the chart. Pure: what is rendered here is what a dry run shows."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from budcluster.deployment.fitting.sizing import (
    CORES_PER_GPU,
    CORES_WITHOUT_GPU,
    GIB,
    MEMORY_GIB_PER_GPU,
    memory_without_gpu_gib,
)
from budcluster.deployment.models import RuntimeType
from budcluster.deployment.runtimes.image import image_of
from budcluster.deployment.runtimes.launch import CACHE_PATH, Hardware, Launch, LaunchRequest
from budcluster.kube.ownership import LABEL_DEPLOYMENT

_DEADLINE_SLACK_S: Final = 600
_GRACE_S: Final = 90
_PRE_STOP_S: Final = 10
# The cache holds the weights and compiled graphs.
_CACHE_SLACK: Final = 1.3
_DEFAULT_CACHE_GIB: Final = 200

RESOURCES: Final = {Hardware.NVIDIA: "nvidia.com/gpu", Hardware.AMD: "amd.com/gpu", Hardware.HABANA: "habana.ai/gaudi"}
"""What a device is asked for by, where nothing says otherwise."""
_MODEL_LABELS: Final = {Hardware.NVIDIA: "nvidia.com/gpu.product", Hardware.AMD: "amd.com/gpu.product-name"}
_SHARED_SUFFIX: Final = "-SHARED"
"""What GPU Feature Discovery puts behind the product where devices are shared under their own name."""
_CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
_CREDENTIALS: Final = "budcluster.io/credentials"
_HAMI_PACKS: Final = {"hami.io/node-scheduler-policy": "binpack"}
_TAINTS: Final = {
    Hardware.NVIDIA: ("nvidia.com/gpu", "sku"),
    Hardware.AMD: ("amd.com/gpu",),
    Hardware.HABANA: ("habana.ai/gaudi",),
}

_BESIDE_PODS: Final = {
    "replicas", "strategy", "progressDeadlineSeconds",
    "podDisruptionBudget", "podMonitor", "networkPolicy", "ingress",
}  # fmt: skip
"""Values that are no part of the pod template."""


class CacheMode(StrEnum):
    """Where model files stay between starts."""

    EMPTY_DIR = "emptyDir"
    PVC = "pvc"
    EXISTING = "existing"
    HOST_PATH = "hostPath"


class Rollout(StrEnum):
    """How a new revision replaces the old one."""

    SURGE = "surge"
    """The new replica first: needs a free GPU set."""
    DRAIN_ONE = "drain-one"
    """One old replica makes room at a time."""
    RECREATE = "recreate"
    """All old ones go first: nothing serves meanwhile, and nothing can wait for ever."""


_STRATEGIES: Final[Mapping[Rollout, Mapping[str, Any]]] = {
    Rollout.SURGE: {"type": "RollingUpdate", "maxSurge": 1, "maxUnavailable": 0},
    Rollout.DRAIN_ONE: {"type": "RollingUpdate", "maxSurge": 0, "maxUnavailable": 1},
    Rollout.RECREATE: {"type": "Recreate", "maxSurge": 0, "maxUnavailable": 1},
}


@dataclass(frozen=True, slots=True)
class Cache:
    """The model cache of a deployment."""

    mode: CacheMode = CacheMode.EMPTY_DIR
    storage_class: str | None = None
    access_mode: str = "ReadWriteOnce"
    claim: str = ""
    host_path: str = ""
    keep: bool = False


@dataclass(frozen=True, slots=True)
class SecretEnv:
    """An environment variable that comes from a Secret of the namespace."""

    name: str
    secret: str
    key: str


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """Everything that decides how a deployment is rendered."""

    deployment_id: str
    runtime: RuntimeType
    request: LaunchRequest
    launch: Launch
    replicas: int
    rollout: Rollout
    resource: str = "nvidia.com/gpu"
    """The name by which devices are asked for."""
    nodes: tuple[str, ...] = ()
    """Where the copies were promised a place."""
    on_hami: bool = False
    """Whether HAMi may choose the node."""
    share_memory_mib: int | None = None
    share_cores_percent: int | None = None
    gpu_model: str | None = None
    cache: Cache = field(default_factory=Cache)
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: tuple[SecretEnv, ...] = ()
    pull_secrets: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    """Ids of the credentials behind the environment: with others, the pods must start anew."""
    runtime_class: str = ""
    has_pod_monitors: bool = False
    network_policy: bool = False
    ingress_host: str | None = None
    ingress_class: str = ""
    ingress_tls: bool = False
    ingress_tls_secret: str = ""


def chart_values(plan: ReleasePlan) -> dict[str, Any]:
    """The values document, complete: nothing is left to the chart's defaults but what never changes."""
    launch = plan.launch
    image = image_of(launch.image)
    budget_s = plan.request.startup_budget_s
    return {
        "runtime": plan.runtime.value.lower().replace("_", "-"),
        "model": plan.request.model,
        "labels": {LABEL_DEPLOYMENT: plan.deployment_id},
        "podAnnotations": _annotations(plan),
        "image": {
            "repository": image.repository,
            "tag": image.tag,
            "digest": image.digest,
            "pullSecrets": list(plan.pull_secrets),
        },
        "command": list(launch.command),
        "args": list(launch.args),
        "port": launch.port,
        "env": [{"name": name, "value": value} for name, value in sorted({**plan.env, **launch.env}.items())],
        "secretEnv": [{"name": e.name, "secret": e.secret, "key": e.key} for e in plan.secret_env],
        "configFiles": dict(launch.config_files),
        "replicas": plan.replicas,
        "strategy": dict(_STRATEGIES[plan.rollout]),
        "progressDeadlineSeconds": budget_s + _DEADLINE_SLACK_S,
        "terminationGracePeriodSeconds": _GRACE_S,
        "preStopSeconds": _PRE_STOP_S,
        "probes": {
            "startup": launch.startup.values(),
            "readiness": launch.readiness.values(),
            "liveness": launch.liveness.values(),
        },
        "resources": _resources(plan),
        "sharedMemory": f"{max(2, 4 * plan.request.tensor_parallel)}Gi",
        "cache": _cache(plan),
        "nodeAffinity": _node_affinity(plan),
        # The promise packs: copies that were promised one node are not to be drawn apart.
        "spread": len(set(plan.nodes)) == len(plan.nodes),
        "tolerations": [{"key": key, "operator": "Exists"} for key in _TAINTS.get(plan.request.hardware, ())],
        "runtimeClassName": plan.runtime_class,
        "podSecurityContext": dict(launch.pod_security),
        "securityContext": dict(launch.container_security),
        "podMonitor": {"enabled": plan.has_pod_monitors, "path": launch.metrics_path},
        "podDisruptionBudget": {"enabled": plan.replicas > 1},
        "networkPolicy": {"enabled": plan.network_policy},
        "ingress": {
            "enabled": plan.ingress_host is not None,
            "host": plan.ingress_host or "",
            "className": plan.ingress_class,
            "tls": {"enabled": plan.ingress_tls, "secretName": plan.ingress_tls_secret},
        },
    }


def _resources(plan: ReleasePlan) -> dict[str, Any]:
    """GPUs as limits; CPU and memory as requests only, since a limit would kill a model while it loads."""
    devices = plan.request.tensor_parallel * plan.request.pipeline_parallel
    if plan.request.hardware is Hardware.CPU:
        memory = memory_without_gpu_gib(plan.request.loaded_bytes, devices)
        return {"requests": {"cpu": str(CORES_WITHOUT_GPU * devices), "memory": f"{memory}Gi"}, "limits": {}}
    limits: dict[str, Any] = {plan.resource: devices}
    if plan.share_memory_mib is not None:
        limits["nvidia.com/gpumem"] = plan.share_memory_mib
    if plan.share_cores_percent is not None:
        limits["nvidia.com/gpucores"] = plan.share_cores_percent
    requests = {"cpu": str(CORES_PER_GPU * devices), "memory": f"{MEMORY_GIB_PER_GPU * devices}Gi"}
    return {"requests": requests, "limits": limits}


def _cache(plan: ReleasePlan) -> dict[str, Any]:
    files = plan.request.file_bytes
    size_gib = math.ceil(files * _CACHE_SLACK / GIB) + 10 if files else _DEFAULT_CACHE_GIB
    cache = plan.cache
    return {
        "mode": cache.mode.value,
        "mountPath": CACHE_PATH,
        "size": f"{size_gib}Gi",
        "storageClass": cache.storage_class,
        "accessMode": cache.access_mode,
        "claim": cache.claim,
        "hostPath": cache.host_path,
        "keep": cache.keep,
    }


def _annotations(plan: ReleasePlan) -> dict[str, str]:
    annotations = dict(_HAMI_PACKS) if plan.on_hami else {}
    if plan.credentials:
        # A variable keeps its name when another credential stands behind it: nothing else would tell Kubernetes.
        annotations[_CREDENTIALS] = hashlib.sha256("\n".join(plan.credentials).encode()).hexdigest()[:16]
    return annotations


def _node_affinity(plan: ReleasePlan) -> dict[str, Any]:
    """The GPU model as asked; the promised nodes by preference, so that a copy moves on when its node is lost."""
    affinity: dict[str, Any] = {}
    label = _MODEL_LABELS.get(plan.request.hardware)
    if plan.gpu_model and label:
        names = [plan.gpu_model]
        if plan.request.hardware is Hardware.NVIDIA:
            names.append(plan.gpu_model + _SHARED_SUFFIX)
        terms = [{"matchExpressions": [{"key": label, "operator": "In", "values": names}]}]
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    # A field is compared with one value only, so each node is a term of its own.
    preferred = [
        {"weight": 100, "preference": {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}}
        for node in sorted(set(plan.nodes))
    ]
    if plan.request.hardware is Hardware.CPU:
        elsewhere = {"matchExpressions": [{"key": _CONTROL_PLANE, "operator": "DoesNotExist"}]}
        preferred.append({"weight": 100, "preference": elsewhere})
    if preferred:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return affinity


def never_smaller(values: dict[str, Any], earlier: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The values with a claim as large as the largest of its `earlier` ones: Kubernetes shrinks none."""
    if values["cache"]["mode"] != CacheMode.PVC.value:
        return values
    sizes = [one["cache"]["size"] for one in earlier if one["cache"]["mode"] == CacheMode.PVC.value]
    largest = max((*sizes, values["cache"]["size"]), key=lambda size: int(size.removesuffix("Gi")))
    return {**values, "cache": {**values["cache"], "size": largest}}


def in_their_places(values: dict[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the places of the present ones where nothing else of the pods changes: none starts anew."""
    kept = {**values, "nodeAffinity": present["nodeAffinity"], "spread": present["spread"]}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    is_same = values["nodeAffinity"].get(required) == present["nodeAffinity"].get(required)
    changed = {name for name in kept if kept[name] != present.get(name)}
    return kept if is_same and changed <= _BESIDE_PODS else values


def image_shown(values: Mapping[str, Any]) -> str:
    """The image's reference, as people write it."""
    image = values["image"]
    tag, digest = image.get("tag"), image.get("digest")
    return str(image["repository"]) + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def resource_in(values: Mapping[str, Any]) -> str | None:
    """The name by which the pods of these values ask for devices; None when they ask for none."""
    limits = values["resources"].get("limits") or {}
    return next((name for name in limits if name not in {"nvidia.com/gpumem", "nvidia.com/gpucores"}), None)


def secrets_in(values: Mapping[str, Any]) -> set[str]:
    """Names of the Secrets that the pods of these values use."""
    return {*(one["secret"] for one in values["secretEnv"]), *values["image"]["pullSecrets"]}


def surges(values: Mapping[str, Any]) -> bool:
    """Whether a new copy comes up before an old one goes."""
    return bool(values["strategy"].get("maxSurge"))


def without_surge(values: Mapping[str, Any], *, leaving: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The same values, rolled out in a way that needs no room beside what runs: it cannot wait for ever.

    `leaving` are those of the pods that make room, where they are others. Copies of these values that run already stay
    whichever way it is, as theirs is the newest template again.
    """
    cache = values["cache"]
    mounted = cache["mode"] in {CacheMode.PVC, CacheMode.EXISTING} and cache["accessMode"] == "ReadWriteOnce"
    cramped = leaving is not None and (leaving["strategy"]["type"] == "Recreate" or _needs_more(values, leaving))
    one_by_one = values["replicas"] > 1 and not mounted and not cramped
    return {**values, "strategy": dict(_STRATEGIES[Rollout.DRAIN_ONE if one_by_one else Rollout.RECREATE])}


def _needs_more(values: Mapping[str, Any], leaving: Mapping[str, Any]) -> bool:
    """Whether what one copy frees may not be enough for one of the other kind."""
    wanted, freed = (one["resources"].get("limits") or {} for one in (values, leaving))
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    places = [(one.get("nodeAffinity") or {}).get(required) for one in (values, leaving)]
    return places[0] != places[1] or any(int(amount) > int(freed.get(name, 0)) for name, amount in wanted.items())
