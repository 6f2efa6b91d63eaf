"""What the API server refuses with 422, in the words of apimachinery and pkg/apis/*/validation of Kubernetes 1.36."""

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from sandbox.kubernetes.errors import Cause, Invalid
from sandbox.kubernetes.resources import Kind
from sandbox.kubernetes.selectors import LabelSelector

Obj = dict[str, Any]

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    f"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_DNS_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    f"character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used "
    f"for validation is '{_DNS_1035}')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_VALUE}')"
)
_NAME_PART_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    f"'{_QUALIFIED}')"
)
_RBAC = "rbac.authorization.k8s.io"
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_MAX_DATA_BYTES = 1024 * 1024
_STATEFUL_MAY_CHANGE = frozenset(
    {
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    }
)


def generated_name(prefix: str) -> str:
    """A name for `generateName`: the prefix and five of the letters that Kubernetes uses."""
    return prefix[:58] + "".join(random.choices(_SUFFIX_LETTERS, k=5))


def check(kind: Kind, new: Obj, old: Obj | None) -> None:
    """Refuse an object that the API server would refuse. Raises Invalid with every cause."""
    causes = [*_metadata(kind, new["metadata"])]
    rule = _RULES.get(kind.key)
    if rule is not None:
        causes += rule(new, old)
    if causes:
        raise Invalid(kind.kind, kind.group, new["metadata"].get("name", ""), causes)


def required(field: str, why: str = "") -> Cause:
    """The field is missing."""
    return Cause("FieldValueRequired", f"Required value{': ' + why if why else ''}", field)


def invalid(field: str, value: Any, why: str) -> Cause:
    """The value cannot be."""
    return Cause("FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}", field)


def forbidden(field: str, why: str) -> Cause:
    """The field may not be set or changed."""
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def unsupported(field: str, value: Any, known: list[str]) -> Cause:
    """The value is not one of the known ones."""
    listed = ", ".join(f'"{each}"' for each in known)
    message = f"Unsupported value: {_shown(value)}: supported values: {listed}"
    return Cause("FieldValueNotSupported", message, field)


def _shown(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _metadata(kind: Kind, meta: Obj) -> Iterator[Cause]:
    name = meta.get("name")
    if not name:
        yield required("metadata.name", "name or generateName is required")
    else:
        yield from _name(kind, name)
    for key, value in (meta.get("labels") or {}).items():
        yield from _label_key("metadata.labels", key)
        yield from _label_value("metadata.labels", value)
    for key in meta.get("annotations") or ():
        yield from _label_key("metadata.annotations", key.lower())
    for finalizer in meta.get("finalizers") or ():
        if "/" not in finalizer and finalizer not in {"orphan", "foregroundDeletion", "kubernetes"}:
            yield invalid(
                "metadata.finalizers", finalizer, "name is neither a standard finalizer name nor is it fully qualified"
            )


def _name(kind: Kind, name: str) -> Iterator[Cause]:
    field = "metadata.name"
    if kind.group == _RBAC:
        if name in {".", ".."} or "/" in name or "%" in name:
            yield invalid(field, name, "may not contain '/' or '%'")
        return
    pattern, rule, limit = _SUBDOMAIN, _SUBDOMAIN_RULE, 253
    if kind.key == "Namespace":
        pattern, rule, limit = _LABEL, _LABEL_RULE, 63
    elif kind.key == "Service":
        pattern, rule, limit = _DNS_1035, _DNS_1035_RULE, 63
    if len(name) > limit:
        yield invalid(field, name, f"must be no more than {limit} bytes")
    if not re.fullmatch(pattern, name):
        yield invalid(field, name, rule)


def _label_key(field: str, key: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash and not re.fullmatch(_SUBDOMAIN, prefix):
        yield invalid(field, key, f"prefix part {_SUBDOMAIN_RULE}")
    if len(name) > 63:
        yield invalid(field, key, "name part must be no more than 63 bytes")
    if not re.fullmatch(_QUALIFIED, name):
        yield invalid(field, key, _NAME_PART_RULE)


def _label_value(field: str, value: Any) -> Iterator[Cause]:
    if not isinstance(value, str):
        yield invalid(field, value, "must be a string")
        return
    if len(value) > 63:
        yield invalid(field, value, "must be no more than 63 bytes")
    if not re.fullmatch(_VALUE, value):
        yield invalid(field, value, _VALUE_RULE)


def _pod_spec(spec: Obj, path: str, *, claimed: frozenset[str] = frozenset()) -> Iterator[Cause]:
    """`claimed` names the volumes that come from a StatefulSet's claim templates."""
    containers = spec.get("containers")
    if not containers:
        yield required(f"{path}.containers")
    for field in ("initContainers", "containers"):
        seen: set[str] = set()
        for index, container in enumerate(spec.get(field) or ()):
            yield from _container(container, f"{path}.{field}[{index}]", seen)
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()} | claimed
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            for number, mount in enumerate(container.get("volumeMounts") or ()):
                if mount.get("name") not in volumes:
                    where = f"{path}.{field}[{index}].volumeMounts[{number}].name"
                    yield Cause("FieldValueNotFound", f"Not found: {_shown(mount.get('name'))}", where)


def _container(container: Obj, path: str, seen: set[str]) -> Iterator[Cause]:
    name = container.get("name")
    if not name:
        yield required(f"{path}.name")
    elif name in seen:
        yield Cause("FieldValueDuplicate", f"Duplicate value: {_shown(name)}", f"{path}.name")
    elif len(name) > 63 or not re.fullmatch(_LABEL, name):
        yield invalid(f"{path}.name", name, _LABEL_RULE)
    seen.add(name or "")
    if not container.get("image"):
        yield required(f"{path}.image")
    resources = container.get("resources") or {}
    limits = resources.get("limits") or {}
    for resource, asked in (resources.get("requests") or {}).items():
        if "/" not in resource:
            continue
        if resource not in limits:
            yield required(f"{path}.resources.limits", "Limit must be set for non overcommitable resources")
        elif str(asked) != str(limits[resource]):
            why = f"must be equal to {resource} limit of {limits[resource]}"
            yield invalid(f"{path}.resources.requests", str(asked), why)


def _pod(new: Obj, old: Obj | None) -> Iterator[Cause]:
    if old is None:
        yield from _pod_spec(new["spec"], "spec")
    elif _frozen_pod_part(new["spec"], old["spec"]) != _frozen_pod_part(old["spec"], old["spec"]):
        why = (
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
        )
        yield forbidden("spec", why)


def _frozen_pod_part(spec: Obj, old: Obj) -> Obj:
    free = {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"}
    if not old.get("nodeName"):
        free = free | {"nodeName"}
    frozen = {field: value for field, value in spec.items() if field not in free}
    for field in ("containers", "initContainers"):
        if field in frozen:
            frozen[field] = [{**c, "image": "", "resources": {}} for c in frozen[field] or ()]
    frozen.pop("ephemeralContainers", None)
    return frozen


def _workload(new: Obj, old: Obj | None) -> Iterator[Cause]:
    spec = new["spec"]
    selector, template = spec.get("selector"), spec.get("template") or {}
    if not selector:
        yield required("spec.selector")
    elif old is not None and selector != old["spec"].get("selector"):
        yield invalid("spec.selector", selector, "field is immutable")
    elif not LabelSelector.from_object(selector).matches((template.get("metadata") or {}).get("labels")):
        labels = (template.get("metadata") or {}).get("labels") or {}
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    for key, value in ((template.get("metadata") or {}).get("labels") or {}).items():
        yield from _label_key("spec.template.labels", key)
        yield from _label_value("spec.template.labels", value)
    claims = frozenset(claim["metadata"]["name"] for claim in new["spec"].get("volumeClaimTemplates") or ())
    yield from _pod_spec(template.get("spec") or {}, "spec.template.spec", claimed=claims)
    restart = (template.get("spec") or {}).get("restartPolicy")
    if restart != "Always":
        yield unsupported("spec.template.spec.restartPolicy", restart, ["Always"])
    replicas = spec.get("replicas")
    if isinstance(replicas, int) and replicas < 0:
        yield invalid("spec.replicas", replicas, "must be greater than or equal to 0")
    elif replicas is not None and not isinstance(replicas, int):
        yield invalid("spec.replicas", replicas, "must be an integer")


def _stateful_set(new: Obj, old: Obj | None) -> Iterator[Cause]:
    yield from _workload(new, None if old is None else {"spec": {"selector": new["spec"].get("selector")}})
    if old is None:
        return
    fields = (set(new["spec"]) | set(old["spec"])) - _STATEFUL_MAY_CHANGE
    if any(new["spec"].get(field) != old["spec"].get(field) for field in fields):
        why = (
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        )
        yield forbidden("spec", why)


def _job(new: Obj, old: Obj | None) -> Iterator[Cause]:
    template = new["spec"].get("template") or {}
    yield from _pod_spec(template.get("spec") or {}, "spec.template.spec")
    restart = (template.get("spec") or {}).get("restartPolicy")
    if restart not in {"OnFailure", "Never"}:
        yield unsupported("spec.template.spec.restartPolicy", restart, ["OnFailure", "Never"])
    if old is not None and template != old["spec"].get("template") and not old["spec"].get("suspend"):
        yield invalid("spec.template", template, "field is immutable")


def _binding(new: Obj, old: Obj | None) -> Iterator[Cause]:
    if not new.get("roleRef"):
        yield required("roleRef.name")
    elif old is not None and new["roleRef"] != old["roleRef"]:
        yield invalid("roleRef", new["roleRef"], "cannot change roleRef")


def _data(new: Obj, old: Obj | None) -> Iterator[Cause]:
    size = sum(
        len(v) for field in ("data", "binaryData") for v in (new.get(field) or {}).values() if isinstance(v, str)
    )
    if new["kind"] == "Secret":
        size = size * 3 // 4
    if size > _MAX_DATA_BYTES:
        yield Cause("FieldValueTooLong", f"Too long: may not be more than {_MAX_DATA_BYTES} bytes", "data")
    if old is not None and old.get("immutable") and new.get("data") != old.get("data"):
        yield forbidden("data", "field is immutable when `immutable` is set")


def _service(new: Obj, old: Obj | None) -> Iterator[Cause]:
    spec = new["spec"]
    if not spec.get("ports") and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        yield required("spec.ports")
    before = old["spec"] if old is not None else {}
    if before.get("clusterIP") not in {None, spec.get("clusterIP")} and spec.get("type") == before.get("type"):
        yield invalid("spec.clusterIPs[0]", [spec.get("clusterIP")], "may not change once set")


def _definition(new: Obj, _old: Obj | None) -> Iterator[Cause]:
    spec, name = new["spec"], new["metadata"].get("name", "")
    expected = f"{spec['names'].get('plural', '')}.{spec.get('group', '')}"
    if name != expected:
        yield invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    if not spec.get("versions"):
        yield required("spec.versions")


_Rule = Callable[[Obj, Obj | None], Iterator[Cause]]
_RULES: dict[str, _Rule] = {
    "Pod": _pod,
    "Deployment": _workload,
    "ReplicaSet": _workload,
    "DaemonSet": _workload,
    "StatefulSet": _stateful_set,
    "Job": _job,
    "RoleBinding": _binding,
    "ClusterRoleBinding": _binding,
    "ConfigMap": _data,
    "Secret": _data,
    "Service": _service,
    "CustomResourceDefinition": _definition,
}
