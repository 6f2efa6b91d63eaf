r"""Reads the protobuf bodies that kubectl sends through its typed clients.

A body is `k8s\0` and a runtime.Unknown (apimachinery runtime/generated.proto). Field numbers are those of the
generated.proto files of k8s.io/api 1.36, for the kinds that `kubectl create` and `kubectl auth can-i` send.
"""

import base64
from collections.abc import Iterator
from typing import Any

from sandbox.kubernetes.errors import UnsupportedMediaType

Obj = dict[str, Any]
# A field is (name, type): "str", "bytes", "int", "int-or-string", "bool", "map", "bytesmap", or a nested schema;
# "[]" means repeated.
Schema = dict[int, tuple[str, Any]]

MAGIC = b"k8s\x00"

_OWNER: Schema = {5: ("apiVersion", "str"), 1: ("kind", "str"), 3: ("name", "str"), 4: ("uid", "str")}
_META: Schema = {
    1: ("name", "str"),
    2: ("generateName", "str"),
    3: ("namespace", "str"),
    5: ("uid", "str"),
    6: ("resourceVersion", "str"),
    11: ("labels", "map"),
    12: ("annotations", "map"),
    13: ("ownerReferences[]", _OWNER),
    14: ("finalizers[]", "str"),
}
_RESOURCE: Schema = {
    1: ("namespace", "str"),
    2: ("verb", "str"),
    3: ("group", "str"),
    4: ("version", "str"),
    5: ("resource", "str"),
    6: ("subresource", "str"),
    7: ("name", "str"),
}
_NON_RESOURCE: Schema = {1: ("path", "str"), 2: ("verb", "str")}
_ATTRIBUTES: Schema = {1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _NON_RESOURCE)}
_RULE: Schema = {
    1: ("verbs[]", "str"),
    2: ("apiGroups[]", "str"),
    3: ("resources[]", "str"),
    4: ("resourceNames[]", "str"),
    5: ("nonResourceURLs[]", "str"),
}
_SUBJECT: Schema = {1: ("kind", "str"), 2: ("apiGroup", "str"), 3: ("name", "str"), 4: ("namespace", "str")}
_ROLE_REF: Schema = {1: ("apiGroup", "str"), 2: ("kind", "str"), 3: ("name", "str")}
_PORT: Schema = {1: ("name", "str"), 3: ("containerPort", "int"), 4: ("protocol", "str")}
_CONTAINER: Schema = {
    1: ("name", "str"),
    2: ("image", "str"),
    3: ("command[]", "str"),
    4: ("args[]", "str"),
    6: ("ports[]", _PORT),
    14: ("imagePullPolicy", "str"),
}
_POD: Schema = {2: ("containers[]", _CONTAINER), 3: ("restartPolicy", "str"), 8: ("serviceAccountName", "str")}
_TEMPLATE: Schema = {1: ("metadata", _META), 2: ("spec", _POD)}
_DEPLOYMENT: Schema = {1: ("replicas", "int"), 2: ("selector", {1: ("matchLabels", "map")}), 3: ("template", _TEMPLATE)}
_PRECONDITIONS: Schema = {1: ("uid", "str"), 2: ("resourceVersion", "str")}
_DELETE: Schema = {
    1: ("gracePeriodSeconds", "int"),
    2: ("preconditions", _PRECONDITIONS),
    3: ("orphanDependents", "bool"),
    4: ("propagationPolicy", "str"),
    5: ("dryRun[]", "str"),
}
_BINDING: Schema = {1: ("metadata", _META), 2: ("subjects[]", _SUBJECT), 3: ("roleRef", _ROLE_REF)}
_ROLE: Schema = {1: ("metadata", _META), 2: ("rules[]", _RULE)}
_REVIEW: Schema = {1: ("metadata", _META), 2: ("spec", _ATTRIBUTES)}
_TOKEN: Schema = {1: ("audiences[]", "str"), 4: ("expirationSeconds", "int")}
_SERVICE_PORT: Schema = {
    1: ("name", "str"),
    2: ("protocol", "str"),
    3: ("port", "int"),
    4: ("targetPort", "int-or-string"),
    5: ("nodePort", "int"),
}
_SERVICE: Schema = {
    1: ("ports[]", _SERVICE_PORT),
    2: ("selector", "map"),
    3: ("clusterIP", "str"),
    4: ("type", "str"),
    10: ("externalName", "str"),
}
_SCHEMAS: dict[str, Schema] = {
    "Namespace": {1: ("metadata", _META)},
    "ServiceAccount": {1: ("metadata", _META)},
    "ConfigMap": {1: ("metadata", _META), 2: ("data", "map"), 3: ("binaryData", "bytesmap")},
    "Secret": {1: ("metadata", _META), 2: ("data", "bytesmap"), 3: ("type", "str"), 4: ("stringData", "map")},
    "SelfSubjectAccessReview": _REVIEW,
    "SelfSubjectRulesReview": {1: ("metadata", _META), 2: ("spec", {1: ("namespace", "str")})},
    "SelfSubjectReview": {1: ("metadata", _META)},
    "TokenRequest": {1: ("metadata", _META), 2: ("spec", _TOKEN)},
    "Role": _ROLE,
    "ClusterRole": _ROLE,
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
    "Deployment": {1: ("metadata", _META), 2: ("spec", _DEPLOYMENT)},
    "Job": {1: ("metadata", _META), 2: ("spec", {6: ("template", _TEMPLATE)})},
    "Eviction": {1: ("metadata", _META), 2: ("deleteOptions", _DELETE)},
    "DeleteOptions": _DELETE,
    "Service": {1: ("metadata", _META), 2: ("spec", _SERVICE)},
    "PriorityClass": {
        1: ("metadata", _META),
        2: ("value", "int"),
        3: ("globalDefault", "bool"),
        4: ("description", "str"),
    },
    "Scale": {1: ("metadata", _META), 2: ("spec", {1: ("replicas", "int")})},
}


def decode(body: bytes) -> Obj:
    """The object in a protobuf body. Raises UnsupportedMediaType for a kind that is not in the table above."""
    if not body.startswith(MAGIC):
        raise UnsupportedMediaType("the body is not a Kubernetes protobuf message")
    unknown = dict(_fields(body[len(MAGIC) :]))
    type_meta = dict(_fields(unknown.get(1, b"")))
    kind = type_meta.get(2, b"").decode()
    if kind not in _SCHEMAS:
        raise UnsupportedMediaType(f'the sandbox reads no protobuf body of kind "{kind}"; send JSON')
    return {"kind": kind, "apiVersion": type_meta.get(1, b"").decode(), **_message(unknown.get(2, b""), _SCHEMAS[kind])}


def _message(raw: bytes, schema: Schema) -> Obj:
    obj: Obj = {}
    for number, value in _fields(raw):
        if number not in schema:
            continue
        name, kind = schema[number]
        if kind in ("map", "bytesmap"):
            entry = dict(_fields(value))
            text = entry.get(2, b"")
            key = entry.get(1, b"").decode()
            obj.setdefault(name, {})[key] = base64.b64encode(text).decode() if kind == "bytesmap" else text.decode()
        elif name.endswith("[]"):
            obj.setdefault(name[:-2], []).append(_value(value, kind))
        else:
            obj[name] = _value(value, kind)
    return {name: value for name, value in obj.items() if value != ""}


def _value(value: Any, kind: Any) -> Any:
    if isinstance(kind, dict):
        return _message(value, kind)
    if kind == "str":
        return value.decode()
    if kind == "int-or-string":
        said = dict(_fields(value))
        return said.get(3, b"").decode() if said.get(1) else said.get(2, 0)
    return bool(value) if kind == "bool" else value


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(raw, position)
            yield number, value
        elif wire == 2:
            length, position = _varint(raw, position)
            yield number, raw[position : position + length]
            position += length
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            yield number, raw[position : position + width]
            position += width
        else:
            raise UnsupportedMediaType("the protobuf body is malformed")


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(raw):
            raise UnsupportedMediaType("the protobuf body ends too early")
        byte = raw[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if not byte & 0x80:
            return value, position
        shift += 7
