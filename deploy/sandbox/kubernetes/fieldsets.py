"""Which fields an object has, as server-side apply counts them: paths, their FieldsV1 form, and their printed form.

A path is a tuple of FieldsV1 keys: `f:spec`, `k:{"name":"web"}` for the item of an associative list, `v:"x"` for a
member of a set (structured-merge-diff v4, serialize-pe.go).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sandbox.kubernetes.patch import is_primitive_set, merge_key

Obj = dict[str, Any]
Path = tuple[str, ...]

_ATOMIC_MAPS = frozenset(
    {"selector", "nodeSelector", "labelSelector", "podSelector", "namespaceSelector", "configMapKeyRef", "secretKeyRef"}
    | {"fieldRef", "resourceFieldRef", "roleRef", "involvedObject", "claimRef", "secretRef", "configMapRef"}
)
_NOT_OWNED = frozenset({"apiVersion", "kind"})
_META_NOT_OWNED = frozenset(
    {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"}
    | {"deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generateName"}
)


@dataclass(frozen=True)
class Shape:
    """How the lists and maps of one kind merge. `schema` is a custom resource's openAPIV3Schema, if it has one."""

    schema: Obj | None = field(default=None)
    is_custom: bool = False

    def list_keys(self, path: Path) -> tuple[str, ...] | None:
        """The keys of an associative list; empty for a set of plain values; None for an atomic list."""
        names = _names(path)
        if self.is_custom and names[:1] != ("metadata",):
            return self._custom_keys(names)
        if is_primitive_set(names):
            return ()
        key = merge_key(names)
        if key is None or names[-1] == "addresses":
            return None
        return (key, "protocol") if names[-1] == "ports" else (key,)

    def is_atomic_map(self, path: Path) -> bool:
        """Whether the map at this path is owned as a whole."""
        names = _names(path)
        if self.is_custom:
            return self._node(names).get("x-kubernetes-map-type") == "atomic"
        return bool(names) and names[-1] in _ATOMIC_MAPS and names != ("spec", "selector", "matchLabels")

    def _custom_keys(self, names: tuple[str, ...]) -> tuple[str, ...] | None:
        node = self._node(names)
        kind = node.get("x-kubernetes-list-type")
        if kind == "map":
            return tuple(node.get("x-kubernetes-list-map-keys", ()))
        return () if kind == "set" else None

    def _node(self, names: tuple[str, ...]) -> Obj:
        node: Obj = self.schema or {}
        for name in names:
            if node.get("type") == "array":
                node = node.get("items") or {}
            properties = node.get("properties") or {}
            further = node.get("additionalProperties")
            node = properties.get(name) or (further if isinstance(further, dict) else {})
        return node


def leaves(obj: Obj, shape: Shape) -> dict[Path, Any]:
    """Every owned path with its value; maps and items of lists appear themselves only when they are empty or items."""
    found: dict[Path, Any] = {}
    for name, value in obj.items():
        if name in _NOT_OWNED:
            continue
        if name == "metadata":
            for key, part in value.items():
                if key not in _META_NOT_OWNED:
                    found.update(_walk(part, ("f:metadata", f"f:{key}"), shape))
        else:
            found.update(_walk(value, (f"f:{name}",), shape))
    return found


def item_key(item: Any, keys: tuple[str, ...]) -> str | None:
    """The path element of a list's item, or None when the item lacks a key."""
    if not keys:
        return f"v:{_json(item)}"
    if not isinstance(item, dict):
        return None
    named = {key: item.get(key, "TCP" if key == "protocol" else None) for key in keys}
    if any(value is None for value in named.values()):
        return None
    return f"k:{_json(named)}"


def to_fields_v1(paths: set[Path]) -> Obj:
    """The nested FieldsV1 form of a set of paths."""
    tree: Obj = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return tree


def from_fields_v1(tree: Obj, prefix: Path = ()) -> Iterator[Path]:
    """The paths in a FieldsV1 form."""
    if not tree and prefix:
        yield prefix
    for element, below in tree.items():
        if element == ".":
            yield prefix
        else:
            yield from from_fields_v1(below, (*prefix, element))


def printed(path: Path) -> str:
    """`.spec.containers[name="web"].image`, as conflicts are reported."""
    text = ""
    for element in path:
        mark, _, rest = element.partition(":")
        if mark == "f":
            text += f".{rest}"
        elif mark == "k":
            text += "[" + ",".join(f"{key}={_json(value)}" for key, value in json.loads(rest).items()) + "]"
        else:
            text += f"[={rest}]"
    return text


def _walk(value: Any, path: Path, shape: Shape) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and not shape.is_atomic_map(path):
        for name, part in value.items():
            yield from _walk(part, (*path, f"f:{name}"), shape)
        return
    if isinstance(value, list) and (keys := shape.list_keys(path)) is not None:
        for item in value:
            element = item_key(item, keys)
            if element is None:
                continue
            here = (*path, element)
            yield here, item if not keys else None
            if keys:
                for name, part in item.items():
                    yield from _walk(part, (*here, f"f:{name}"), shape)
        return
    yield path, value


def _names(path: Path) -> tuple[str, ...]:
    return tuple(element[2:] for element in path if element.startswith("f:"))


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
