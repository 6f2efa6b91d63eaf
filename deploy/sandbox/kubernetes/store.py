"""The cluster's state: versioned objects, their deletion rules, and a history that watches are fed from.

Everything runs in one asyncio thread and nothing here awaits. A dict that goes in is copied, a dict that comes out is
the stored one and must not be changed by the caller: the store replaces objects, it never mutates them.
"""

import uuid
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from sandbox.kubernetes import defaults, validation
from sandbox.kubernetes.clock import Clock, timestamp
from sandbox.kubernetes.errors import AlreadyExists, BadRequest, Conflict, Forbidden, NotFound
from sandbox.kubernetes.history import Event, History
from sandbox.kubernetes.ownership import Ownership
from sandbox.kubernetes.resources import Kind, Resources
from sandbox.kubernetes.selectors import FieldSelector, LabelSelector

Obj = dict[str, Any]
Key = tuple[str, str]
# Inside Store the name `list` is the method.
Objects = list[Obj]
Events = list[Event]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


def copy_of(obj: Obj) -> Obj:
    """A deep copy of a JSON object; through orjson, which is several times faster than copy.deepcopy."""
    copied: Obj = orjson.loads(orjson.dumps(obj))
    return copied


def key_of(obj: Obj) -> Key:
    """(namespace or empty, name)."""
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


class Store:
    """Objects of every kind by namespace and name."""

    def __init__(
        self, *, clock: Clock | None = None, resources: Resources | None = None, history: int = 20_000
    ) -> None:
        self.clock = clock or Clock()
        self.resources = resources or Resources()
        self.history = History(limit=history)
        self._objects: dict[str, dict[Key, Obj]] = {}
        self._namespaces: dict[str, set[tuple[str, str]]] = {}
        self._ownership = Ownership()

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def resource_version(self) -> int:
        """The version of the last write."""
        return self.history.version

    def find(self, kind: Kind | str, namespace: str | None, name: str) -> Obj | None:
        """The object, or None."""
        return self._objects.get(self.resources.get(kind).key, {}).get((namespace or "", name))

    def get(self, kind: Kind | str, namespace: str | None, name: str) -> Obj:
        """The object. Raises NotFound."""
        if (obj := self.find(kind, namespace, name)) is None:
            kind = self.resources.get(kind)
            raise NotFound(kind.plural, kind.group, name)
        return obj

    def list(
        self,
        kind: Kind | str,
        namespace: str | None = None,
        *,
        labels: LabelSelector | None = None,
        fields: FieldSelector | None = None,
    ) -> Objects:
        """The objects in order of namespace and name; of every namespace when none is given."""
        objects = self._objects.get(self.resources.get(kind).key, {})
        if namespace and fields and fields.name:
            found = objects.get((namespace, fields.name))
            chosen = [found] if found else []
        elif namespace:
            chosen = [objects[key] for key in sorted(objects) if key[0] == namespace]
        else:
            chosen = [objects[key] for key in sorted(objects)]
        if labels and labels.requirements:
            chosen = [obj for obj in chosen if labels.matches(obj["metadata"].get("labels"))]
        if fields and fields.terms:
            chosen = [obj for obj in chosen if fields.matches(obj)]
        return chosen

    def dependents(self, owner: Obj) -> Objects:
        """The objects that name this one among their ownerReferences."""
        found = (self.find(kind, *key) for kind, key in self._ownership.dependents(owner["metadata"]["uid"]))
        return [obj for obj in found if obj is not None]

    def events_since(self, kind: Kind | str, resource_version: int | str) -> Events:
        """What happened to a kind after that version. Raises Expired when the history no longer reaches back to it."""
        return self.history.since(self.resources.get(kind).key, int(resource_version))

    def subscribe(self, callback: Callable[[Event], None], *, kinds: Iterable[str] | None = None) -> Callable[[], None]:
        """Call back after each write (of these kinds), in the order of writes. Returns what ends the subscription."""
        return self.history.subscribe(callback, kinds=kinds)

    # -- writing ---------------------------------------------------------------------------------------------------

    def create(self, obj: Obj, *, dry_run: bool = False) -> Obj:
        """Store a new object with defaults, a uid and a resourceVersion; `status` is reset where it is a subresource.

        Raises Invalid, AlreadyExists, NotFound for a missing namespace, Forbidden in a namespace that is going away.
        """
        kind = self._kind_of(obj)
        new = copy_of(obj)
        meta = new.setdefault("metadata", {})
        new["apiVersion"] = kind.api_version
        self._place(kind, meta)
        for server_side in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            meta.pop(server_side, None)
        _drop_empty(meta)
        meta["uid"] = meta["uid"] if dry_run and "uid" in meta else str(uuid.uuid4())
        meta["creationTimestamp"] = timestamp(self.clock.now())
        defaults.on_create(kind, new, allocate=self._allocated_addresses)
        validation.check(kind, new, None)
        key = key_of(new)
        if key in self._objects.get(kind.key, {}):
            raise AlreadyExists(kind.plural, kind.group, key[1])
        if dry_run:
            return new
        self._put(kind, new, None)
        return self._objects[kind.key].get(key, new)

    def replace(self, obj: Obj, *, subresource: str | None = None, dry_run: bool = False) -> Obj:
        """Store a new state of an object. With `subresource="status"` only the status counts, without it all but that.

        A state equal to the stored one changes nothing, not even resourceVersion. Raises Conflict when the given
        resourceVersion or uid is not the stored one, NotFound, Invalid.
        """
        kind = self._kind_of(obj)
        old = self.get(kind, obj["metadata"].get("namespace"), obj["metadata"]["name"])
        self._check_precondition(kind, obj, old)
        new = self._merged(kind, copy_of(obj), old, subresource)
        if new == old:
            return old
        if subresource != "status":
            defaults.on_update(kind, new, old)
            validation.check(kind, new, old)
        if "generation" in old["metadata"] and _intent(new) != _intent(old):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if new == old or dry_run:
            return old if new == old else new
        if _may_leave(new):
            return self._remove(kind, new)
        self._put(kind, new, old)
        return new

    def update(
        self,
        kind: Kind | str,
        namespace: str | None,
        name: str,
        change: Callable[[Obj], None],
        *,
        subresource: str | None = None,
    ) -> Obj | None:
        """Read, change a copy, write back: what a controller does. None when the object is gone.

        As with `replace`, the status changes only with `subresource="status"`.
        """
        if (old := self.find(kind, namespace, name)) is None:
            return None
        new = copy_of(old)
        change(new)
        return self.replace(new, subresource=subresource)

    def delete(
        self,
        kind: Kind | str,
        namespace: str | None,
        name: str,
        *,
        propagation: str = "Background",
        grace_seconds: int | None = None,
        uid: str | None = None,
        dry_run: bool = False,
    ) -> Obj | None:
        """Delete an object. None when it is gone at once, else the object that waits for finalizers or its kubelet.

        A scheduled pod waits for its grace period; the kubelet ends it with `grace_seconds=0`. Raises NotFound, and
        Conflict when `uid` is not the stored one.
        """
        kind = self.resources.get(kind)
        old = self.get(kind, namespace, name)
        if uid is not None and uid != old["metadata"]["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
            raise Conflict(kind.plural, kind.group, name, why)
        if dry_run:
            return old
        new = copy_of(old)
        self._mark_deleted(kind, new, propagation=propagation, grace_seconds=grace_seconds)
        if kind.key == "Namespace":
            return self._terminate_namespace(kind, new, old)
        if _may_leave(new):
            self._remove(kind, new)
            return None
        if new != old:
            self._put(kind, new, old)
        if FOREGROUND in new["metadata"].get("finalizers", ()):
            self._delete_dependents(new, foreground=True)
            self._finish_foreground(new["metadata"]["uid"])
        return self.find(kind, namespace, name)

    # -- internals -------------------------------------------------------------------------------------------------

    def _kind_of(self, obj: Obj) -> Kind:
        if (kind := self.resources.of_object(obj)) is None:
            raise BadRequest(f'no kind "{obj.get("kind", "")}" is registered for version "{obj.get("apiVersion", "")}"')
        return kind

    def _place(self, kind: Kind, meta: Obj) -> None:
        """Settle name and namespace of a new object."""
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = validation.generated_name(meta["generateName"])
        if not kind.namespaced:
            meta.pop("namespace", None)
            return
        meta["namespace"] = namespace = meta.get("namespace") or "default"
        home = self.find("Namespace", None, namespace)
        if home is None:
            raise NotFound("namespaces", "", namespace)
        if "deletionTimestamp" in home["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise Forbidden(kind.plural, kind.group, meta.get("name", ""), why)

    def _check_precondition(self, kind: Kind, obj: Obj, old: Obj) -> None:
        given, stored = obj["metadata"], old["metadata"]
        if given.get("resourceVersion") and given["resourceVersion"] != stored["resourceVersion"]:
            raise Conflict(kind.plural, kind.group, stored["name"])
        if given.get("uid") and given["uid"] != stored["uid"]:
            why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {stored['uid']}"
            raise Conflict(kind.plural, kind.group, stored["name"], why)

    def _merged(self, kind: Kind, new: Obj, old: Obj, subresource: str | None) -> Obj:
        """What this write may change of `old`: the status, or all but the status and what the server keeps."""
        meta, kept = new["metadata"], old["metadata"]
        new["apiVersion"], new["kind"] = old["apiVersion"], old["kind"]
        if subresource == "status":
            changed = (
                {**old, "status": new["status"]} if "status" in new else {k: v for k, v in old.items() if k != "status"}
            )
            # A dict of its own: the older state, which the history keeps, has another resourceVersion.
            managed = {"managedFields": meta["managedFields"]} if "managedFields" in meta else {}
            changed["metadata"] = {**kept, **managed}
            return changed
        if kind.has_status or kind.key == "Node":
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        for field in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            if field in kept:
                meta[field] = kept[field]
            else:
                meta.pop(field, None)
        meta["resourceVersion"] = kept["resourceVersion"]
        _drop_empty(meta)
        return new

    def _put(self, kind: Kind, new: Obj, old: Obj | None) -> None:
        key = key_of(new)
        new["metadata"]["resourceVersion"] = str(self.history.next_version())
        self._objects.setdefault(kind.key, {})[key] = new
        if old is None and key[0]:
            self._namespaces.setdefault(key[0], set()).add((kind.key, key[1]))
        self._ownership.record(kind.key, key, new, old)
        self.history.record(Event("ADDED" if old is None else "MODIFIED", new, old, kind))

    def _remove(self, kind: Kind, last: Obj) -> Obj:
        key = key_of(last)
        old = self._objects[kind.key].pop(key)
        gone = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.history.next_version())}}
        self._namespaces.get(key[0], set()).discard((kind.key, key[1]))
        self._ownership.record(kind.key, key, None, old)
        with self.history.held():
            self.history.record(Event("DELETED", gone, old, kind))
            self._delete_dependents(gone, foreground=False)
            for owner in gone["metadata"].get("ownerReferences", ()):
                self._finish_foreground(owner["uid"])
            self._finish_namespace(key[0])
        return gone

    def _mark_deleted(self, kind: Kind, new: Obj, *, propagation: str, grace_seconds: int | None) -> None:
        meta = new["metadata"]
        grace = _grace(kind, new, grace_seconds)
        if "deletionTimestamp" not in meta or grace < meta.get("deletionGracePeriodSeconds", 0):
            meta["deletionTimestamp"] = timestamp(self.clock.now())
            meta["deletionGracePeriodSeconds"] = grace
        if propagation == "Orphan":
            self._orphan_dependents(new)
        elif propagation == "Foreground" and FOREGROUND not in meta.get("finalizers", ()):
            meta["finalizers"] = [*meta.get("finalizers", ()), FOREGROUND]

    def _orphan_dependents(self, owner: Obj) -> None:
        for dependent in self.dependents(owner):
            self._drop_owner(dependent, owner["metadata"]["uid"])

    def _drop_owner(self, dependent: Obj, uid: str) -> None:
        kind = self._kind_of(dependent)

        def drop(obj: Obj) -> None:
            left = [ref for ref in obj["metadata"].get("ownerReferences", ()) if ref["uid"] != uid]
            obj["metadata"]["ownerReferences"] = left
            if not left:
                del obj["metadata"]["ownerReferences"]

        self.update(kind, *key_of(dependent), drop)

    def _delete_dependents(self, owner: Obj, *, foreground: bool) -> None:
        uid = owner["metadata"]["uid"]
        for dependent in self.dependents(owner):
            owners = dependent["metadata"]["ownerReferences"]
            if any(ref["uid"] != uid and self._ownership.is_alive(ref["uid"]) for ref in owners):
                self._drop_owner(dependent, uid)
            elif "deletionTimestamp" not in dependent["metadata"]:
                propagation = "Foreground" if foreground else "Background"
                self.delete(self._kind_of(dependent), *key_of(dependent), propagation=propagation)

    def _finish_foreground(self, uid: str) -> None:
        """Let an owner go that waited for its dependents, once none is left that blocks it."""
        place = self._ownership.place(uid)
        owner = self.find(place[0], *place[1]) if place else None
        if owner is None or FOREGROUND not in owner["metadata"].get("finalizers", ()):
            return
        blocking = (
            ref.get("blockOwnerDeletion")
            for dependent in self.dependents(owner)
            for ref in dependent["metadata"]["ownerReferences"]
            if ref["uid"] == uid
        )
        if not any(blocking):
            self.update(
                self._kind_of(owner), *key_of(owner), lambda obj: obj["metadata"]["finalizers"].remove(FOREGROUND)
            )

    def _terminate_namespace(self, kind: Kind, new: Obj, old: Obj) -> Obj | None:
        name = new["metadata"]["name"]
        if name in {"default", "kube-system", "kube-public", "kube-node-lease"}:
            raise Forbidden("namespaces", "", name, "this namespace may not be deleted")
        new["status"] = {**new.get("status", {}), "phase": "Terminating"}
        if "deletionTimestamp" not in old["metadata"]:
            self._put(kind, new, old)
        with self.history.held():
            for kind_key, child in sorted(self._namespaces.get(name, ())):
                if self.find(kind_key, name, child) is not None:
                    self.delete(kind_key, name, child)
        self._finish_namespace(name)
        return new

    def _finish_namespace(self, name: str) -> None:
        home = self.find("Namespace", None, name) if name else None
        if home is None or "deletionTimestamp" not in home["metadata"] or self._namespaces.get(name):
            return
        if home["metadata"].get("finalizers"):
            return
        self._namespaces.pop(name, None)
        self._remove(self.resources.get("Namespace"), home)

    def _allocated_addresses(self) -> set[str]:
        return {service["spec"].get("clusterIP", "") for service in self._objects.get("Service", {}).values()}


def _intent(obj: Obj) -> Obj:
    return {field: value for field, value in obj.items() if field not in {"metadata", "status"}}


def _may_leave(obj: Obj) -> bool:
    """Whether nothing holds a deleted object any more: no finalizer, no grace period that a kubelet must end."""
    meta = obj["metadata"]
    if "deletionTimestamp" not in meta or meta.get("finalizers"):
        return False
    return obj["kind"] != "Namespace" and not meta.get("deletionGracePeriodSeconds")


def _grace(kind: Kind, obj: Obj, asked: int | None) -> int:
    """Seconds a pod may take to end. Only a scheduled pod that still runs gets any (registry/core/pod strategy.go)."""
    if kind.key != "Pod" or not obj["spec"].get("nodeName"):
        return 0
    if obj.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
        return 0
    return asked if asked is not None else int(obj["spec"].get("terminationGracePeriodSeconds", 30))


def _drop_empty(meta: Obj) -> None:
    """The API server writes no empty labels, annotations, finalizers or owners."""
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in meta and not meta[field]:
            del meta[field]


__all__ = ["Event", "Obj", "Store", "copy_of", "key_of"]
