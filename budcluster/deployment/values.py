"""From a deployment's plan to the values of the chart. Pure: what is rendered here is what a dry run shows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from budcluster.deployment.models import RuntimeType
from budcluster.deployment.runtimes.launch import CACHE_PATH, GIB, Hardware, Launch, LaunchRequest

LABEL_DEPLOYMENT: Final = "budcluster.io/deployment-id"
_DEADLINE_SLACK_S: Final = 600
_GRACE_S: Final = 90
_PRE_STOP_S: Final = 10
_CPU_PER_GPU: Final = 4
_HOST_MEMORY_GIB: Final = 8
_CPU_KV_GIB: Final = 8
# Images with a GPU runtime take 20 GB and more beside the weights; the cache holds the weights and compiled graphs.
_CACHE_SLACK: Final = 1.3
_DEFAULT_CACHE_GIB: Final = 200

_RESOURCES: Final = {Hardware.NVIDIA: "nvidia.com/gpu", Hardware.AMD: "amd.com/gpu", Hardware.HABANA: "habana.ai/gaudi"}
_TAINTS: Final = {
    Hardware.NVIDIA: ("nvidia.com/gpu", "sku"),
    Hardware.AMD: ("amd.com/gpu",),
    Hardware.HABANA: ("habana.ai/gaudi",),
}


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


def choose_rollout(*, replicas: int, room_for_one_more: bool, exclusive_cache: bool) -> Rollout:
    """The strategy that serves most and cannot wait for ever for a GPU, or for a volume that one node holds."""
    if room_for_one_more and not exclusive_cache:
        return Rollout.SURGE
    return Rollout.DRAIN_ONE if replicas > 1 and not exclusive_cache else Rollout.RECREATE


_STRATEGIES: Final[Mapping[Rollout, Mapping[str, Any]]] = {
    Rollout.SURGE: {"type": "RollingUpdate", "maxSurge": 1, "maxUnavailable": 0},
    Rollout.DRAIN_ONE: {"type": "RollingUpdate", "maxSurge": 0, "maxUnavailable": 1},
    Rollout.RECREATE: {"type": "Recreate", "maxSurge": 0, "maxUnavailable": 1},
}


def without_surge(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, rolled out in a way that needs no room beside what runs: it cannot wait for ever."""
    cache = values["cache"]
    exclusive = cache["mode"] in {CacheMode.PVC, CacheMode.EXISTING} and cache["accessMode"] == "ReadWriteOnce"
    rollout = choose_rollout(replicas=values["replicas"], room_for_one_more=False, exclusive_cache=exclusive)
    return {**values, "strategy": dict(_STRATEGIES[rollout])}


@dataclass(frozen=True, slots=True)
class Cache:
    """The model cache of a deployment."""

    mode: CacheMode = CacheMode.EMPTY_DIR
    storage_class: str | None = None
    access_mode: str = "ReadWriteOnce"
    claim: str = ""
    host_path: str = ""
    keep: bool = False

    @property
    def is_exclusive(self) -> bool:
        """Whether only one node can mount it."""
        return self.mode in {CacheMode.PVC, CacheMode.EXISTING} and self.access_mode == "ReadWriteOnce"


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
    share_memory_mib: int | None = None
    share_cores_percent: int | None = None
    gpu_model: str | None = None
    cache: Cache = field(default_factory=Cache)
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: tuple[SecretEnv, ...] = ()
    pull_secrets: tuple[str, ...] = ()
    runtime_class: str = ""
    has_pod_monitors: bool = False
    network_policy: bool = False
    ingress_host: str | None = None
    ingress_class: str = ""


def chart_values(plan: ReleasePlan) -> dict[str, Any]:
    """The values document, complete: nothing is left to the chart's defaults but what never changes."""
    launch = plan.launch
    repository, _, tag = launch.image.rpartition(":")
    budget_s = plan.request.startup_budget_s
    return {
        "runtime": plan.runtime.value.lower().replace("_", "-"),
        "model": plan.request.model,
        "labels": {LABEL_DEPLOYMENT: plan.deployment_id},
        "image": {"repository": repository, "tag": tag, "pullSecrets": list(plan.pull_secrets)},
        "command": list(launch.command),
        "args": list(launch.args),
        "port": launch.port,
        "env": [{"name": name, "value": value} for name, value in sorted(_environment(plan).items())],
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
        "nodeSelector": _node_selector(plan),
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
        },
    }


def _environment(plan: ReleasePlan) -> dict[str, str]:
    environment = {**plan.env, **plan.launch.env}
    if plan.request.hardware is Hardware.CPU and plan.runtime is RuntimeType.VLLM:
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(_CPU_KV_GIB)  # whole GiB; it refuses fractions
    return environment


def _resources(plan: ReleasePlan) -> dict[str, Any]:
    """GPUs as limits; CPU and memory as requests only, since a limit would kill a model while it loads."""
    weights_gib = math.ceil((plan.request.weights_bytes or 16 * GIB) / GIB)
    if plan.request.hardware is Hardware.CPU:
        memory = math.ceil(weights_gib * 1.2) + _CPU_KV_GIB + _HOST_MEMORY_GIB
        return {"requests": {"cpu": "8", "memory": f"{memory}Gi"}, "limits": {}}
    devices = plan.request.tensor_parallel * plan.request.pipeline_parallel
    limits: dict[str, Any] = {_RESOURCES[plan.request.hardware]: devices}
    if plan.share_memory_mib is not None:
        limits["nvidia.com/gpumem"] = plan.share_memory_mib
    if plan.share_cores_percent is not None:
        limits["nvidia.com/gpucores"] = plan.share_cores_percent
    requests = {"cpu": str(_CPU_PER_GPU * devices), "memory": f"{_HOST_MEMORY_GIB * devices}Gi"}
    return {"requests": requests, "limits": limits}


def _cache(plan: ReleasePlan) -> dict[str, Any]:
    weights = plan.request.weights_bytes
    size_gib = math.ceil(weights * _CACHE_SLACK / GIB) + 10 if weights else _DEFAULT_CACHE_GIB
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


def _node_selector(plan: ReleasePlan) -> dict[str, str]:
    if plan.gpu_model and plan.request.hardware is Hardware.NVIDIA:
        return {"nvidia.com/gpu.product": plan.gpu_model}
    return {}
