"""Server-side apply, and who owns which field after any other write."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sandbox.kubernetes.clock import timestamp
from sandbox.kubernetes.errors import ApplyConflict
from sandbox.kubernetes.fieldsets import Path, Shape, from_fields_v1, item_key, leaves, printed, to_fields_v1

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes: name, `Apply` or `Update`, the version written in, and the subresource written to, if any."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What tells managers apart; an apply is the same one in every version of the API."""
        version = "" if self.operation == "Apply" else self.api_version
        return self.name, self.operation, version, self.subresource

    def __str__(self) -> str:
        where = f' with subresource "{self.subresource}"' if self.subresource else ""
        version = f" using {self.api_version}" if self.operation == "Update" else ""
        return f'"{self.name}"{where}{version}'


Owners = dict[Manager, set[Path]]


def apply(live: Obj | None, applied: Obj, manager: Manager, shape: Shape, *, force: bool, now: datetime) -> Obj:
    """The object after `manager` applied its intent to `live`, managedFields included.

    Fields that the manager applied before and leaves out now disappear, unless somebody else owns them too. Raises
    ApplyConflict when a field would change that another manager owns, unless `force`.
    """
    wanted = leaves(applied, shape)
    if live is None:
        return _with_managers(applied, {manager: set(wanted)}, [], manager, now)
    owners = read_managers(live)
    mine = next((each for each in owners if each.identity == manager.identity), manager)
    before = owners.pop(mine, set())
    current = leaves(live, shape)
    clashes = [
        (other, path)
        for other, owned in owners.items()
        for path in sorted(owned)
        if path in wanted and path in current and current[path] != wanted[path]
    ]
    if clashes and not force:
        raise _conflict(clashes)
    for other, path in clashes:
        owners[other].discard(path)
    held = set().union(*owners.values()) if owners else set()
    dropped = {path for path in before if path not in wanted and not _is_held(path, held)}
    merged = _merge(_without(live, dropped, shape), applied, (), shape)
    owners[manager] = set(wanted)
    return _with_managers(merged, owners, live["metadata"].get("managedFields") or [], manager, now)


def note_update(old: Obj | None, new: Obj, manager: Manager, shape: Shape, *, now: datetime) -> Obj:
    """`new` with managedFields that say: what differs from `old` belongs to `manager` now."""
    before = leaves(old, shape) if old is not None else {}
    after = leaves(new, shape)
    if manager.subresource == "status":
        after = {path: value for path, value in after.items() if path[0] == "f:status"}
        before = {path: value for path, value in before.items() if path[0] == "f:status"}
    else:
        after = {path: value for path, value in after.items() if path[0] != "f:status"}
        before = {path: value for path, value in before.items() if path[0] != "f:status"}
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    gone = set(before) - set(after)
    if not changed and not gone:
        return new
    owners = read_managers(new)
    for other, owned in owners.items():
        owned.difference_update(gone)
        if other.identity != manager.identity:
            owned.difference_update(changed)
    if changed:
        mine = next((each for each in owners if each.identity == manager.identity), manager)
        owners[mine] = owners.get(mine, set()) | changed
    return _with_managers(new, owners, new["metadata"].get("managedFields") or [], manager, now)


def read_managers(obj: Obj) -> Owners:
    """The owners of an object's fields, out of its managedFields."""
    owners: Owners = {}
    for entry in obj["metadata"].get("managedFields") or ():
        if not entry.get("manager"):
            continue
        subresource = entry.get("subresource", "")
        manager = Manager(entry["manager"], entry["operation"], entry.get("apiVersion", ""), subresource)
        owners.setdefault(manager, set()).update(from_fields_v1(entry.get("fieldsV1") or {}))
    return owners


def _is_held(path: Path, held: set[Path]) -> bool:
    return path in held or any(other[: len(path)] == path for other in held)


def _conflict(clashes: list[tuple[Manager, Path]]) -> ApplyConflict:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": printed(path)}
        for manager, path in clashes
    ]
    if len(clashes) == 1:
        manager, path = clashes[0]
        said = f"Apply failed with 1 conflict: conflict with {manager}: {printed(path)}"
    else:
        by_manager: dict[str, list[str]] = {}
        for manager, path in clashes:
            by_manager.setdefault(str(manager), []).append(printed(path))
        parts = [
            f"conflicts with {name}:" + "".join(f"\n- {path}" for path in paths)
            for name, paths in sorted(by_manager.items())
        ]
        said = f"Apply failed with {len(clashes)} conflicts: " + "\n".join(parts)
    return ApplyConflict(said, details={"causes": causes})


def _with_managers(obj: Obj, owners: Owners, before: Iterable[Obj], writer: Manager, now: datetime) -> Obj:
    times = {(e.get("manager"), e.get("operation"), e.get("apiVersion"), e.get("subresource", "")): e for e in before}
    entries: list[Obj] = []
    for manager, paths in owners.items():
        if not paths:
            continue
        entry: Obj = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": timestamp(now),
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields_v1(paths),
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        known = times.get((manager.name, manager.operation, manager.api_version, manager.subresource))
        if known and (manager.identity != writer.identity or known.get("fieldsV1") == entry["fieldsV1"]):
            entry["time"] = known.get("time", entry["time"])
        entries.append(entry)
    return {**obj, "metadata": {**obj["metadata"], "managedFields": entries}}


def _merge(live: Any, applied: Any, path: Path, shape: Shape) -> Any:
    if isinstance(applied, dict) and isinstance(live, dict) and not (path and shape.is_atomic_map(path)):
        merged = dict(live)
        for name, value in applied.items():
            merged[name] = _merge(live.get(name), value, (*path, f"f:{name}"), shape)
        return merged
    if isinstance(applied, list) and isinstance(live, list) and (keys := shape.list_keys(path)) is not None:
        return _merge_items(live, applied, keys, path, shape)
    return applied


def _merge_items(live: list[Any], applied: list[Any], keys: tuple[str, ...], path: Path, shape: Shape) -> list[Any]:
    known = {item_key(item, keys): item for item in live}
    named = {item_key(item, keys) for item in applied}
    kept = [item for item in live if item_key(item, keys) not in named]
    merged = [
        _merge(known[key], item, (*path, key), shape) if (key := item_key(item, keys)) in known and key else item
        for item in applied
    ]
    return [*merged, *kept]


def _without(obj: Obj, dropped: set[Path], shape: Shape) -> Obj:
    trimmed = obj
    # Items of lists first: without its key an item would not be found any more.
    for path in sorted(dropped, key=lambda path: (not path[-1].startswith("k:"), -len(path))):
        trimmed = _drop(trimmed, path, (), shape)
    return trimmed


def _drop(value: Any, path: Path, walked: Path, shape: Shape) -> Any:
    """`value` without what lies at `path`; maps that become empty by it go too."""
    element, rest = path[0], path[1:]
    here = (*walked, element)
    if element.startswith("f:"):
        name = element[2:]
        if not isinstance(value, dict) or name not in value:
            return value
        below = _drop(value[name], rest, here, shape) if rest else None
        if below is None or (below in ({}, []) and value[name] != below):
            return {key: part for key, part in value.items() if key != name}
        return {**value, name: below}
    keys = shape.list_keys(walked)
    if keys is None or not isinstance(value, list):
        return value
    if not rest:
        return [item for item in value if item_key(item, keys) != element]
    return [_drop(item, rest, here, shape) if item_key(item, keys) == element else item for item in value]
