"""JSON patch, merge patch and strategic merge patch, the last with the merge keys of the built-in types."""

from typing import Any

import jsonpatch

from sandbox.kubernetes.errors import ApiError, BadRequest

Obj = dict[str, Any]

# patchMergeKey of k8s.io/api types, by the name of the list; lists that are not named here are replaced.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "env": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ownerReferences": "uid",
    "conditions": "type",
    "addresses": "type",
    "webhooks": "name",
    "podIPs": "ip",
}
_PRIMITIVE_SETS = frozenset({"finalizers", "podCIDRs"})
_ORDER, _DELETE_FROM = "$setElementOrder/", "$deleteFromPrimitiveList/"


class UnprocessablePatch(ApiError):
    """A JSON patch whose operation does not fit the object."""

    code, reason = 422, "Invalid"


def json_patch(obj: Obj, operations: Any) -> Obj:
    """RFC 6902. Raises UnprocessablePatch when an operation does not apply, BadRequest when it is not a patch."""
    if not isinstance(operations, list):
        raise BadRequest("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    try:
        patched: Obj = jsonpatch.apply_patch(obj, operations)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise UnprocessablePatch(f"the server rejected our request due to an error in our request: {error}") from error
    return patched


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: maps merge, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for field, value in patch.items():
        if value is None:
            merged.pop(field, None)
        else:
            merged[field] = merge_patch(merged.get(field), value)
    return merged


def strategic_merge(target: Obj, patch: Obj) -> Obj:
    """Merge as kubectl's strategic merge patch does, with `$patch`, `$retainKeys` and `$setElementOrder`."""
    return _merge_map(target, patch, ())


def merge_key(path: tuple[str, ...]) -> str | None:
    """The field that tells the items of the list at `path` apart, or None when the list is replaced as a whole."""
    field = path[-1]
    if field == "ports":
        if any(part in {"containers", "initContainers", "ephemeralContainers"} for part in path):
            return "containerPort"
        return "port" if path == ("spec", "ports") else None
    if field == "secrets":
        return "name" if len(path) == 1 else None
    return _MERGE_KEYS.get(field)


def is_primitive_set(path: tuple[str, ...]) -> bool:
    """Whether the list at `path` is a set of plain values that merges."""
    return path[-1] in _PRIMITIVE_SETS


def _merge_map(target: Obj, patch: Obj, path: tuple[str, ...]) -> Obj:
    directive = patch.get("$patch")
    if directive == "replace":
        return {field: value for field, value in patch.items() if field != "$patch"}
    if directive == "delete":
        return {}
    merged = dict(target)
    if "$retainKeys" in patch:
        merged = {field: value for field, value in merged.items() if field in patch["$retainKeys"]}
    for field, value in patch.items():
        if field.startswith(_DELETE_FROM):
            name = field.removeprefix(_DELETE_FROM)
            merged[name] = [item for item in merged.get(name) or () if item not in value]
        elif field.startswith("$"):
            continue
        elif value is None:
            merged.pop(field, None)
        else:
            merged[field] = _merge_value(merged.get(field), value, (*path, field))
    for field, order in patch.items():
        name = field.removeprefix(_ORDER)
        if name != field and isinstance(merged.get(name), list):
            merged[name] = _ordered(merged[name], order, merge_key((*path, name)))
    return merged


def _merge_value(target: Any, value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return _merge_map(target if isinstance(target, dict) else {}, value, path)
    if isinstance(value, list):
        return _merge_list(target if isinstance(target, list) else [], value, path)
    return value


def _merge_list(target: list[Any], patch: list[Any], path: tuple[str, ...]) -> list[Any]:
    if any(isinstance(item, dict) and item.get("$patch") == "replace" and len(item) == 1 for item in patch):
        return [item for item in patch if item != {"$patch": "replace"}]
    if is_primitive_set(path):
        return [*target, *(item for item in patch if item not in target)]
    key = merge_key(path)
    if key is None:
        return patch
    merged = list(target)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise BadRequest(f"map: {item} does not contain declared merge key: {key}")
        place = next((n for n, old in enumerate(merged) if old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if place is not None:
                del merged[place]
        elif place is None:
            merged.append(_merge_map({}, item, path))
        else:
            merged[place] = _merge_map(merged[place], item, path)
    return merged


def _ordered(items: list[Any], order: list[Any], key: str | None) -> list[Any]:
    """The items named in `order` in that order; each other item stays behind the item it followed."""

    def name_of(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    ranks = {name_of(item): rank for rank, item in enumerate(order)}
    anchored: list[tuple[int, int, Any]] = []
    last = -1
    for number, item in enumerate(items):
        last = ranks.get(name_of(item), last)
        anchored.append((last, number if name_of(item) not in ranks else -1, item))
    anchored.sort(key=lambda entry: entry[:2])
    return [item for _, _, item in anchored]
