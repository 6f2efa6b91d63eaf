"""What the API server fills in: defaults of the well-known kinds, and the status that a new object starts with.

Values follow pkg/apis/*/v1/defaults.go of Kubernetes 1.36.
"""

import base64
from collections.abc import Callable, Iterator
from typing import Any

from sandbox.kubernetes.resources import Kind

Obj = dict[str, Any]

_WITHOUT_GENERATION = frozenset(
    {
        "Node",
        "Namespace",
        "Service",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Lease",
        "ResourceQuota",
        "LimitRange",
    }
)
_FIRST_STATUS: dict[str, Obj] = {
    "Namespace": {"phase": "Active"},
    "Pod": {"phase": "Pending"},
    "PersistentVolumeClaim": {"phase": "Pending"},
    "PersistentVolume": {"phase": "Pending"},
    "Service": {"loadBalancer": {}},
    "Ingress": {"loadBalancer": {}},
    "ReplicaSet": {"replicas": 0},
    "StatefulSet": {"replicas": 0, "availableReplicas": 0},
    "DaemonSet": {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0},
}


def on_create(kind: Kind, obj: Obj, *, allocate: Callable[[], set[str]]) -> None:
    """Complete a new object in place. `allocate` tells the service addresses that are taken."""
    meta = obj["metadata"]
    if "spec" in obj and kind.key not in _WITHOUT_GENERATION:
        meta["generation"] = 1
    if kind.has_status and kind.key != "Node":
        obj.pop("status", None)
    if kind.key in _FIRST_STATUS:
        obj["status"] = dict(_FIRST_STATUS[kind.key])
    elif kind.has_status and not kind.is_custom:
        obj.setdefault("status", {})
    if kind.key == "Namespace":
        obj.setdefault("spec", {})["finalizers"] = ["kubernetes"]
        meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta.get("name", "")
    if kind.key == "Service":
        _allocate_service(obj.setdefault("spec", {}), allocate)
    if kind.key == "Job":
        _label_job(obj)
    complete(kind, obj)
    if kind.key == "Pod":
        obj["status"]["qosClass"] = quality_of_service(obj["spec"])


def on_update(kind: Kind, new: Obj, old: Obj) -> None:
    """Complete a changed object in place and keep what only the server assigns."""
    if kind.key == "Service":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if field in old["spec"] and not new.get("spec", {}).get(field):
                new.setdefault("spec", {})[field] = old["spec"][field]
    if kind.key == "Job" and not new.get("spec", {}).get("selector"):
        new.setdefault("spec", {})["selector"] = old["spec"].get("selector")
    if kind.key == "ServiceAccount" and "secrets" in old and "secrets" not in new:
        new["secrets"] = old["secrets"]
    complete(kind, new)


def complete(kind: Kind, obj: Obj) -> None:
    """Fill in the defaults of the kind; doing so twice changes nothing."""
    fill = _FILLERS.get(kind.key)
    if fill is not None:
        fill(obj)


def quality_of_service(spec: Obj) -> str:
    """Guaranteed, Burstable or BestEffort (cpu and memory alone count)."""
    containers = [*spec.get("containers", ()), *spec.get("initContainers", ())]
    resources = [container.get("resources") or {} for container in containers]
    if not any(_measured(r.get("requests")) or _measured(r.get("limits")) for r in resources):
        return "BestEffort"
    for each in resources:
        limits = _measured(each.get("limits"))
        if set(limits) != {"cpu", "memory"} or _measured(each.get("requests")) != limits:
            return "Burstable"
    return "Guaranteed"


def _measured(quantities: Obj | None) -> Obj:
    return {name: value for name, value in (quantities or {}).items() if name in {"cpu", "memory"}}


def _set(target: Obj, **values: Any) -> None:
    for field, value in values.items():
        if target.get(field) is None:
            target[field] = value


def _pod_spec(spec: Obj) -> None:
    _set(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
    )
    if spec.get("serviceAccountName") and not spec.get("serviceAccount"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    for container in _containers(spec):
        _container(container)
    for volume in spec.get("volumes") or ():
        for source in ("configMap", "secret", "downwardAPI", "projected"):
            if isinstance(volume.get(source), dict):
                _set(volume[source], defaultMode=420)
        if isinstance(volume.get("hostPath"), dict):
            _set(volume["hostPath"], type="")


def _containers(spec: Obj) -> Iterator[Obj]:
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            if isinstance(container, dict):
                yield container


def _container(container: Obj) -> None:
    image = container.get("image") or ""
    floats = "@" not in image and image.rpartition(":")[2] in {"latest", image, *image.split("/")[-1:]}
    _set(
        container,
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy="Always" if floats else "IfNotPresent",
    )
    for port in container.get("ports") or ():
        _set(port, protocol="TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(probe := container.get(name), dict):
            _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            if isinstance(probe.get("httpGet"), dict):
                _set(probe["httpGet"], path="/", scheme="HTTP")
    for variable in container.get("env") or ():
        field = (variable.get("valueFrom") or {}).get("fieldRef")
        if field is not None:
            _set(field, apiVersion="v1")
    limits = (container["resources"] or {}).get("limits") or {}
    if limits:
        requests = container["resources"].setdefault("requests", {})
        _set(requests, **limits)


def _pod(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(
        spec, serviceAccountName="default", enableServiceLinks=True, preemptionPolicy="PreemptLowerPriority", priority=0
    )
    _pod_spec(spec)


def _template(spec: Obj) -> None:
    template = spec.get("template")
    if isinstance(template, dict):
        template.setdefault("metadata", {})
        _pod_spec(template.setdefault("spec", {}))


def _deployment(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600, strategy={})
    _set(spec["strategy"], type="RollingUpdate")
    if spec["strategy"]["type"] == "RollingUpdate":
        _set(spec["strategy"], rollingUpdate={})
        _set(spec["strategy"]["rollingUpdate"], maxUnavailable="25%", maxSurge="25%")
    _template(spec)


def _replica_set(obj: Obj) -> None:
    _set(obj.setdefault("spec", {}), replicas=1)
    _template(obj["spec"])


def _stateful_set(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1, revisionHistoryLimit=10, podManagementPolicy="OrderedReady", updateStrategy={})
    _set(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _set(spec["updateStrategy"], rollingUpdate={"partition": 0})
    _set(spec, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"})
    for claim in spec.get("volumeClaimTemplates") or ():
        _set(claim, apiVersion="v1", kind="PersistentVolumeClaim", status={"phase": "Pending"})
        _claim(claim)
    _template(spec)


def _daemon_set(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, revisionHistoryLimit=10, updateStrategy={})
    _set(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _set(spec["updateStrategy"], rollingUpdate={})
        _set(spec["updateStrategy"]["rollingUpdate"], maxUnavailable=1, maxSurge=0)
    _template(spec)


def _job(obj: Obj) -> None:
    _job_spec(obj.setdefault("spec", {}))


def _job_spec(spec: Obj) -> None:
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    _set(spec, parallelism=1, backoffLimit=6, completionMode="NonIndexed", suspend=False, manualSelector=False)
    _set(spec, podReplacementPolicy="TerminatingOrFailed")
    _template(spec)


def _cron_job(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
    template = (spec.get("jobTemplate") or {}).get("spec")
    if template:
        _template(template)


def _label_job(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("manualSelector") or spec.get("selector"):
        return
    uid, name = obj["metadata"]["uid"], obj["metadata"].get("name", "")
    template = spec.setdefault("template", {})
    if not isinstance(template, dict):
        return
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels[f"{prefix}controller-uid"] = uid
        labels[f"{prefix}job-name"] = name
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _service(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    for port in spec.get("ports") or ():
        _set(port, protocol="TCP", targetPort=port.get("port"))
        if port.get("nodePort") == 0:
            del port["nodePort"]
    if spec["type"] in {"NodePort", "LoadBalancer"}:
        _set(spec, externalTrafficPolicy="Cluster")
        for port in spec.get("ports") or ():
            _set(port, nodePort=30000 + (port.get("port") or 0) % 2768)
    if spec["type"] == "LoadBalancer":
        _set(spec, allocateLoadBalancerNodePorts=True)


def _allocate_service(spec: Obj, taken: Callable[[], set[str]]) -> None:
    if spec.get("type") == "ExternalName":
        return
    if not spec.get("clusterIP"):
        used = taken()
        numbers = (n for n in range(10, 1 << 20) if f"10.{96 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" not in used)
        n = next(numbers)
        spec["clusterIP"] = f"10.{96 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"
    _set(spec, clusterIPs=[spec["clusterIP"]], ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")


def _secret(obj: Obj) -> None:
    _set(obj, type="Opaque")
    for name, text in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[name] = base64.b64encode(str(text).encode()).decode()


def _claim(obj: Obj) -> None:
    _set(obj.setdefault("spec", {}), volumeMode="Filesystem")


def _volume(obj: Obj) -> None:
    _set(obj.setdefault("spec", {}), persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")


def _storage_class(obj: Obj) -> None:
    _set(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _definition(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, conversion={"strategy": "None"})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        _set(names, singular=names["kind"].lower(), listKind=f"{names['kind']}List")


def _binding(obj: Obj) -> None:
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in {"User", "Group"}:
            _set(subject, apiGroup="rbac.authorization.k8s.io")
    if isinstance(obj.get("roleRef"), dict):
        _set(obj["roleRef"], apiGroup="rbac.authorization.k8s.io")


_FILLERS: dict[str, Callable[[Obj], None]] = {
    "Pod": _pod,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "CronJob": _cron_job,
    "Service": _service,
    "Secret": _secret,
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    "StorageClass": _storage_class,
    "CustomResourceDefinition": _definition,
    "RoleBinding": _binding,
    "ClusterRoleBinding": _binding,
    "PriorityClass": lambda obj: _set(obj, preemptionPolicy="PreemptLowerPriority"),
    "HorizontalPodAutoscaler": lambda obj: _set(obj.setdefault("spec", {}), minReplicas=1),
}
