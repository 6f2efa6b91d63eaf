"""What a typed decoder makes of a body: fields that it does not know are dropped, values of another type refused."""

import re
from dataclasses import dataclass, field
from typing import Any

from sandbox.kubernetes.crds import schema_of
from sandbox.kubernetes.errors import ApiError, BadRequest, Invalid
from sandbox.kubernetes.http import Request
from sandbox.kubernetes.resources import Kind, split_api_version
from sandbox.kubernetes.routing import Target
from sandbox.kubernetes.schemas import component, model_of, referred
from sandbox.kubernetes.validation import invalid

Obj = dict[str, Any]

APPLY = "application/apply-patch+yaml"
_ANYTHING: Obj = {}
_TYPES: dict[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}
_GO = {"boolean": "bool", "integer": "int32", "number": "float64", "string": "string"}
_JSON = {bool: "bool", dict: "object", float: "number", int: "number", list: "array", str: "string"}


class Mistyped(Exception):
    """A value has another type than its field."""

    def __init__(self, path: str, value: Any, schema: Obj, owner: str) -> None:
        where, given = re.sub(r"\[\d+\]", "", path), _JSON[type(value)]
        super().__init__(f"json: cannot unmarshal {given} into Go struct field {owner}.{where} of type {_go(schema)}")
        self.applied = f"{path}: expected {schema['type']}, got {given}"


@dataclass(slots=True)
class Decoded:
    """An object as typed code sees it, and the paths of what was dropped."""

    obj: Obj
    unknown: list[str] = field(default_factory=list)


def decode(kind: Kind, obj: Obj) -> Decoded:
    """Decode an object of this kind, by its own apiVersion. Raises Mistyped.

    Custom resources lose what their definition does not name; the types of their values are not looked at.
    """
    model = None if kind.is_custom else model_of(*split_api_version(obj["apiVersion"]), obj["kind"])
    if model is None and not kind.is_custom:
        return Decoded(obj)
    reader = _Reader(is_typed=model is not None)
    read = reader.read_object(obj, component(model) if model else _whole(schema_of(kind)), "", kind.kind)
    return Decoded(read, reader.unknown)


def _whole(schema: Obj | None) -> Obj:
    """The schema of a custom resource with what each object has."""
    if schema is None:
        return _ANYTHING
    common = component("V1ConfigMap")["properties"]
    every = {name: common[name] for name in ("apiVersion", "kind", "metadata")}
    return {**schema, "properties": {**(schema.get("properties") or {}), **every}}


def decode_body(obj: Obj, request: Request, target: Target) -> Obj:
    """What a request writes, decoded; what is dropped is refused or warned of, as its `fieldValidation` says.

    Raises BadRequest, Invalid for the outcome of a patch, and ApiError for what server-side apply cannot type.
    """
    is_applied = request.content_type == APPLY
    try:
        decoded = decode(target.kind, obj)
    except Mistyped as error:
        raise _untypable(obj, target, [error.applied]) if is_applied else _undecodable(target, str(error)) from error
    problems = [f'unknown field "{path}"' for path in decoded.unknown]
    directive = request.query.get("fieldValidation") or "Warn"
    if problems and is_applied:
        raise _untypable(obj, target, [f"{path}: field not declared in schema" for path in decoded.unknown])
    if problems and directive == "Strict":
        said = f"strict decoding error: {', '.join(problems)}"
        if request.method == "PATCH":
            raise Invalid("", "", "", [invalid("patch", obj, said)])
        raise _undecodable(target, said)
    if directive == "Warn":
        request.warnings += problems
    return decoded.obj


def _undecodable(target: Target, why: str) -> BadRequest:
    kind = target.kind.kind
    return BadRequest(f'{kind} in version "{target.version}" cannot be handled as a {kind}: {why}')


def _untypable(obj: Obj, target: Target, mistakes: list[str]) -> ApiError:
    meta = obj.get("metadata") or {}
    place = f"{meta.get('namespace') or target.namespace}/{meta.get('name') or target.name}"
    kind = f"{target.group}/{target.version}, Kind={target.kind.kind}"
    said = f".{mistakes[0]}" if len(mistakes) == 1 else "errors:" + "".join(f"\n  .{one}" for one in mistakes)
    return ApiError(f"failed to create typed patch object ({place}; {kind}): {said}")


class _Reader:
    """Goes through one object. `unknown` collects what it drops."""

    def __init__(self, *, is_typed: bool) -> None:
        self._is_typed = is_typed
        self.unknown: list[str] = []

    def read_object(self, value: Obj, schema: Obj, path: str, owner: str) -> Obj:
        """The object without what its schema does not know."""
        fields, others = schema.get("properties") or {}, schema.get("additionalProperties")
        keeps_all = "type" not in schema or schema.get("x-kubernetes-preserve-unknown-fields") or others is True
        read: Obj = {}
        for name, part in value.items():
            below = f"{path}.{name}" if path else name
            if name in fields:
                read[name] = self._read(part, fields[name], below, owner)
            elif isinstance(others, dict):
                read[name] = self._read(part, others, path if "type" in others else below, owner)
            elif keeps_all:
                read[name] = part
            else:
                self.unknown.append(below)
        return read

    def _read(self, value: Any, schema: Obj, path: str, owner: str) -> Any:
        if value is None:
            return None
        model = referred(schema)
        whole = component(model) if model else schema
        if self._is_typed and not _is_of(value, whole):
            raise Mistyped(path, value, {**whole, **schema}, owner)
        if isinstance(value, dict):
            return self.read_object(value, whole, path, _struct(model) if model else owner)
        if isinstance(value, list):
            items = schema.get("items") or _ANYTHING
            return [self._read(item, items, f"{path}[{number}]", owner) for number, item in enumerate(value)]
        return value


def _is_of(value: Any, schema: Obj) -> bool:
    wanted = schema.get("type")
    # To Python True is a number.
    return wanted is None or (isinstance(value, _TYPES[wanted]) and isinstance(value, bool) == (wanted == "boolean"))


def _struct(model: str) -> str:
    return re.sub(r"^.*?V\d+(?:(?:alpha|beta)\d+)?", "", model)


def _go(schema: Obj) -> str:
    if model := referred(schema):
        return f"v1.{_struct(model)}"
    if schema["type"] == "array":
        return f"[]{_go(schema['items'])}"
    return _GO.get(schema["type"], "map[string]string")
