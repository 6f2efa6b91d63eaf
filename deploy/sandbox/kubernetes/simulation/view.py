"""An index over the store for controllers: pods by node, and whatever has a controller by that controller."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]
Key = tuple[str, str | None, str]
"""Kind, namespace, name."""


def kind_of(obj: Obj) -> str:
    """The kind as the store names it: kinds of custom resources carry their group."""
    group = str(obj.get("apiVersion", "v1")).rpartition("/")[0]
    custom = "." in group and not group.endswith(".k8s.io")
    return f"{obj['kind']}.{group}" if custom else str(obj["kind"])


def key_of(obj: Obj) -> Key:
    """Where an object lives."""
    meta = obj["metadata"]
    return kind_of(obj), meta.get("namespace"), meta["name"]


def controller_of(obj: Obj) -> Obj | None:
    """The owner reference that is marked as the controller."""
    for owner in obj["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return dict(owner)
    return None


def is_finished(pod: Obj) -> bool:
    """Whether a pod holds no resources any more."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_ready(pod: Obj) -> bool:
    """Whether a pod's Ready condition is true and nobody asked for its end."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)


class View:
    """Kept up to date by the store's own notifications, before any controller is told."""

    def __init__(self, store: Store) -> None:
        self.nodes: dict[str, Obj] = {}
        self._by_node: dict[str, dict[Key, Obj]] = {}
        self._owned: dict[str, dict[Key, Obj]] = {}
        self.stop = store.subscribe(self._on_event)

    def pods_on(self, node: str) -> list[Obj]:
        """Every pod bound to a node, finished ones too."""
        return list(self._by_node.get(node, {}).values())

    def owned(self, uid: str, kind: str) -> list[Obj]:
        """The objects of one kind that the owner (by uid) controls."""
        return [obj for key, obj in self._owned.get(uid, {}).items() if key[0] == kind]

    def count(self, uid: str) -> int:
        """How many objects of all kinds an owner controls."""
        return len(self._owned.get(uid, ()))

    def _on_event(self, event: Event) -> None:
        key, gone = key_of(event.obj), event.type == "DELETED"
        owner = controller_of(event.obj)
        if event.old is not None:
            former = controller_of(event.old)
            if former is not None and (owner is None or former["uid"] != owner["uid"]):
                self._owned.get(former["uid"], {}).pop(key, None)
        if owner is not None:
            _put(self._owned, owner["uid"], key, None if gone else event.obj)
        if key[0] == "Node":
            if gone:
                self.nodes.pop(key[2], None)
            else:
                self.nodes[key[2]] = event.obj
        if key[0] == "Pod" and (node := event.obj["spec"].get("nodeName")):
            _put(self._by_node, node, key, None if gone else event.obj)


def _put(index: dict[str, dict[Key, Obj]], group: str, key: Key, obj: Obj | None) -> None:
    if obj is not None:
        index.setdefault(group, {})[key] = obj
        return
    members = index.get(group)
    if members is not None:
        members.pop(key, None)
        if not members:
            del index[group]
