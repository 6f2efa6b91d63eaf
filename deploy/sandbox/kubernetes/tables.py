"""What `kubectl get` shows: the columns of the common kinds, and those that a CRD asks for."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sandbox.kubernetes.clock import parse_timestamp
from sandbox.kubernetes.resources import Kind

Obj = dict[str, Any]
Cells = list[Any]
Print = Callable[[Obj, datetime], Cells]

NONE = "<none>"


def table(kind: Kind, objects: Sequence[Obj], *, now: datetime, metadata: Obj, include: str, headless: bool) -> Obj:
    """A meta.k8s.io/v1 Table. `include` is the includeObject parameter, `headless` leaves the columns out."""
    columns, cells = _columns(kind)
    rows = [{"cells": cells(obj, now), **_included(obj, include)} for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [] if headless else columns,
        "rows": rows,
    }


def age(moment: str | None, now: datetime) -> str:
    """`5d3h`, as duration.HumanDuration writes it (apimachinery pkg/util/duration)."""
    if not moment:
        return "<unknown>"
    seconds = max(0, int((now - parse_timestamp(moment)).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    steps = (
        (seconds < 120, f"{seconds}s"),
        (minutes < 10, _pair(minutes, "m", seconds % 60, "s")),
        (minutes < 180, f"{minutes}m"),
        (hours < 8, _pair(hours, "h", minutes % 60, "m")),
        (hours < 48, f"{hours}h"),
        (days < 8, _pair(days, "d", hours % 24, "h")),
        (days < 730, f"{days}d"),
    )
    return next((text for fits, text in steps if fits), _pair(days // 365, "y", days % 365, "d"))


def json_path(obj: Any, path: str) -> Any:
    """The value at a simple JSONPath such as `.status.conditions[?(@.type=="Ready")].status`; None when absent."""
    for match in re.finditer(r"\[\?\(@\.(\w+)\s*==\s*['\"]([^'\"]*)['\"]\)\]|\[(\d+|\*)\]|\.?((?:\\\.|[^.\[])+)", path):
        key, wanted, index, name = match.groups()
        if key:
            obj = next((item for item in obj or () if item.get(key) == wanted), None)
        elif index:
            place = 0 if index == "*" else int(index)
            obj = obj[place] if isinstance(obj, list) and len(obj) > place else None
        else:
            obj = obj.get(name.replace("\\.", ".")) if isinstance(obj, dict) else None
    return obj


def _pair(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def _included(obj: Obj, include: str) -> Obj:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": obj}
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
    return {"object": partial}


def _columns(kind: Kind) -> tuple[list[Obj], Print]:
    if kind.is_custom and (asked := _asked_columns(kind)):
        return asked
    names, cells = _PRINTERS.get(kind.key, ("", lambda _obj, _now: []))
    columns = [_column(name) for name in names.split("|") if name]
    if kind.key == "Event":
        return [*columns, _column("*Name")], lambda obj, now: [*cells(obj, now), obj["metadata"]["name"]]
    # The age is the last column that a table shows unasked; a node's version comes after it all the same.
    place = next((at for at, column in enumerate(columns) if column["priority"]), len(columns)) - (kind.key == "Node")
    columns = [_column("Name"), *columns[:place], _column("Age"), *columns[place:]]

    def row(obj: Obj, now: datetime) -> Cells:
        printed = cells(obj, now)
        lived = age(obj["metadata"].get("creationTimestamp"), now)
        return [obj["metadata"]["name"], *printed[:place], lived, *printed[place:]]

    return columns, row


def _column(name: str) -> Obj:
    """A column; a leading `*` marks one that only `-o wide` shows."""
    is_wide, title = name.startswith("*"), name.lstrip("*")
    kind = "integer" if title in {"Desired", "Current", "Ready#", "Data", "Secrets"} else "string"
    return {
        "name": title.rstrip("#"),
        "type": kind,
        "format": "name" if title == "Name" else "",
        "description": title,
        "priority": 1 if is_wide else 0,
    }


def _asked_columns(kind: Kind) -> tuple[list[Obj], Print] | None:
    for version in (kind.definition or {}).get("spec", {}).get("versions", ()):
        asked = version.get("additionalPrinterColumns")
        if version["name"] != kind.version or not asked:
            continue
        columns = [_column("Name")] + [
            {"name": c["name"], "type": c["type"], "format": "", "description": "", "priority": c.get("priority", 0)}
            for c in asked
        ]

        def row(obj: Obj, now: datetime, asked: list[Obj] = asked) -> Cells:
            values = ((json_path(obj, c["jsonPath"]), c["type"]) for c in asked)
            return [obj["metadata"]["name"], *(age(v, now) if t == "date" else v for v, t in values)]

        return columns, row
    return None


def _labels(labels: Obj | None) -> str:
    return ",".join(f"{key}={value}" for key, value in (labels or {}).items()) or NONE


def _selector(spec: Obj) -> str:
    return _labels((spec.get("selector") or {}).get("matchLabels"))


def _images(spec: Obj) -> tuple[str, str]:
    containers = spec.get("template", {}).get("spec", {}).get("containers") or ()
    return ",".join(c["name"] for c in containers), ",".join(c.get("image", "") for c in containers)


def _pod(obj: Obj, now: datetime) -> Cells:
    spec, status = obj["spec"], obj.get("status", {})
    statuses = status.get("containerStatuses") or []
    ready = sum(1 for s in statuses if s.get("ready"))
    restarts = sum(s.get("restartCount", 0) for s in statuses)
    last = [
        s["lastState"]["terminated"].get("finishedAt") for s in statuses if s.get("lastState", {}).get("terminated")
    ]
    shown = f"{restarts} ({age(max(filter(None, last)), now)} ago)" if restarts and any(last) else str(restarts)
    return [
        f"{ready}/{len(spec.get('containers') or ())}",
        pod_phase(obj),
        shown,
        status.get("podIP") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        NONE,
    ]


def pod_phase(obj: Obj) -> str:
    """The STATUS column: the phase, or the reason that says more (pkg/printers/internalversion printPod)."""
    status = obj.get("status", {})
    reason: str = status.get("reason") or status.get("phase", "Unknown")
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    if conditions.get("PodScheduled", {}).get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    waiting_init = _init_reason(obj)
    for each in status.get("containerStatuses") or () if not waiting_init else ():
        state = each.get("state") or {}
        if (state.get("waiting") or {}).get("reason"):
            reason = state["waiting"]["reason"]
        elif "terminated" in state:
            ended = state["terminated"]
            reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}"
    if "deletionTimestamp" in obj["metadata"]:
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return waiting_init or reason


def _init_reason(obj: Obj) -> str:
    statuses = obj.get("status", {}).get("initContainerStatuses") or ()
    total = len(obj["spec"].get("initContainers") or ())
    for number, each in enumerate(statuses):
        state = each.get("state") or {}
        if "terminated" in state:
            if state["terminated"].get("exitCode") == 0:
                continue
            return f"Init:{state['terminated'].get('reason') or 'Error'}"
        if each.get("started") and each.get("ready"):
            continue
        reason = (state.get("waiting") or {}).get("reason")
        return f"Init:{reason}" if reason and reason != "PodInitializing" else f"Init:{number}/{total}"
    return ""


def _node(obj: Obj, _now: datetime) -> Cells:
    status, info = obj.get("status", {}), obj.get("status", {}).get("nodeInfo", {})
    ready = next((c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"), "Unknown")
    shown = {"True": "Ready", "False": "NotReady"}.get(ready, "NotReady" if status.get("conditions") else "Unknown")
    if obj.get("spec", {}).get("unschedulable"):
        shown += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key[len(prefix) :] for key in obj["metadata"].get("labels") or () if key.startswith(prefix))
    addresses = {a["type"]: a["address"] for a in status.get("addresses") or ()}
    return [
        shown,
        ",".join(roles) or NONE,
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.get("osImage", "<unknown>"),
        info.get("kernelVersion", "<unknown>"),
        info.get("containerRuntimeVersion", "<unknown>"),
    ]


def _deployment(obj: Obj, _now: datetime) -> Cells:
    spec, status = obj["spec"], obj.get("status", {})
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    return [ready, *counts, *_images(spec), _selector(spec)]


def _replica_set(obj: Obj, _now: datetime) -> Cells:
    spec, status = obj["spec"], obj.get("status", {})
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    return [*counts, *_images(spec), _selector(spec)]


def _stateful_set(obj: Obj, _now: datetime) -> Cells:
    spec, status = obj["spec"], obj.get("status", {})
    return [f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}", *_images(spec)]


def _daemon_set(obj: Obj, _now: datetime) -> Cells:
    spec, status = obj["spec"], obj.get("status", {})
    fields = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    where = _labels(spec.get("template", {}).get("spec", {}).get("nodeSelector"))
    return [*(status.get(field, 0) for field in fields), where, *_images(spec), _selector(spec)]


def _job(obj: Obj, now: datetime) -> Cells:
    spec, status = obj["spec"], obj.get("status", {})
    done = {c["type"] for c in status.get("conditions") or () if c["status"] == "True"}
    state = next((known for known in ("Complete", "Failed", "Suspended") if known in done), "Running")
    wanted = spec.get("completions") or spec.get("parallelism", 1)
    end = parse_timestamp(status["completionTime"]) if status.get("completionTime") else now
    lasted = age(status["startTime"], end) if status.get("startTime") else ""
    return [state, f"{status.get('succeeded', 0)}/{wanted}", lasted, *_images(spec), _selector(spec)]


def _service(obj: Obj, _now: datetime) -> Cells:
    spec = obj["spec"]
    ingress = obj.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
    external = ",".join(i.get("ip") or i.get("hostname", "") for i in ingress) or NONE
    if spec.get("type") == "LoadBalancer" and external == NONE:
        external = "<pending>"
    ports = ",".join(
        f"{p['port']}:{p['nodePort']}/{p['protocol']}" if p.get("nodePort") else f"{p['port']}/{p['protocol']}"
        for p in spec.get("ports") or ()
    )
    return [spec.get("type"), spec.get("clusterIP") or NONE, external, ports or NONE, _labels(spec.get("selector"))]


def _event(obj: Obj, now: datetime) -> Cells:
    about = obj.get("involvedObject") or {}
    return [
        age(obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp"), now),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        (obj.get("message") or "").strip(),
    ]


def _claim(obj: Obj, _now: datetime) -> Cells:
    spec, status = obj["spec"], obj.get("status", {})
    phase = "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", "")
    modes = _modes(status.get("accessModes"))
    size = (status.get("capacity") or {}).get("storage", "")
    return [phase, spec.get("volumeName", ""), size, modes, spec.get("storageClassName") or "", "<unset>"]


def _volume(obj: Obj, _now: datetime) -> Cells:
    spec, claim = obj["spec"], obj["spec"].get("claimRef") or {}
    bound = f"{claim.get('namespace')}/{claim.get('name')}" if claim else ""
    policy, phase = spec.get("persistentVolumeReclaimPolicy"), obj.get("status", {}).get("phase")
    size = (spec.get("capacity") or {}).get("storage")
    return [
        size,
        _modes(spec.get("accessModes")),
        policy,
        phase,
        bound,
        spec.get("storageClassName") or "",
        "<unset>",
        "",
    ]


def _modes(modes: Sequence[str] | None) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(mode, mode) for mode in modes or ())


def _ingress(obj: Obj, _now: datetime) -> Cells:
    spec = obj["spec"]
    hosts = ",".join(rule["host"] for rule in spec.get("rules") or () if rule.get("host")) or "*"
    found = obj.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
    address = ",".join(i.get("ip") or i.get("hostname", "") for i in found)
    return [spec.get("ingressClassName") or NONE, hosts, address, "80, 443" if spec.get("tls") else "80"]


def _binding(obj: Obj, _now: datetime) -> Cells:
    return [f"{obj['roleRef'].get('kind')}/{obj['roleRef'].get('name')}"]


def _storage_class(obj: Obj, _now: datetime) -> Cells:
    return [
        obj.get("provisioner"),
        obj.get("reclaimPolicy"),
        obj.get("volumeBindingMode"),
        str(bool(obj.get("allowVolumeExpansion"))).lower(),
    ]


_IMAGES = "*Containers|*Images|*Selector"
_PRINTERS: dict[str, tuple[str, Print]] = {
    "Pod": ("Ready|Status|Restarts|*IP|*Node|*Nominated Node|*Readiness Gates", _pod),
    "Node": (
        "Status|Roles|Version|*Internal-IP|*External-IP|*OS-Image|*Kernel-Version|*Container-Runtime",
        _node,
    ),
    "Deployment": (f"Ready|Up-to-date|Available|{_IMAGES}", _deployment),
    "ReplicaSet": (f"Desired|Current|Ready#|{_IMAGES}", _replica_set),
    "StatefulSet": ("Ready|*Containers|*Images", _stateful_set),
    "DaemonSet": (f"Desired|Current|Ready#|Up-to-date|Available|Node Selector|{_IMAGES}", _daemon_set),
    "Job": (f"Status|Completions|Duration|{_IMAGES}", _job),
    "CronJob": ("Schedule|Suspend", lambda o, _now: [o["spec"].get("schedule"), str(o["spec"].get("suspend"))]),
    "Service": ("Type|Cluster-IP|External-IP|Port(s)|*Selector", _service),
    "Event": ("Last Seen|Type|Reason|Object|Message", _event),
    "Namespace": ("Status", lambda o, _now: [o.get("status", {}).get("phase")]),
    "ConfigMap": ("Data", lambda o, _now: [len(o.get("data") or ()) + len(o.get("binaryData") or ())]),
    "Secret": ("Type|Data", lambda o, _now: [o.get("type"), len(o.get("data") or ())]),
    "ServiceAccount": ("Secrets", lambda o, _now: [len(o.get("secrets") or ())]),
    "PersistentVolumeClaim": ("Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass", _claim),
    "PersistentVolume": (
        "Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason",
        _volume,
    ),
    "Ingress": ("Class|Hosts|Address|Ports", _ingress),
    "RoleBinding": ("Role", _binding),
    "ClusterRoleBinding": ("Role", _binding),
    "StorageClass": ("Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion", _storage_class),
    "RuntimeClass": ("Handler", lambda o, _now: [o.get("handler")]),
    "PriorityClass": (
        "Value|Global-Default",
        lambda o, _now: [o.get("value"), str(bool(o.get("globalDefault"))).lower()],
    ),
    "Lease": ("Holder", lambda o, _now: [o.get("spec", {}).get("holderIdentity")]),
    "CustomResourceDefinition": ("Created At", lambda o, _now: [o["metadata"]["creationTimestamp"]]),
}
