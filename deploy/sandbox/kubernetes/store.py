"""The cluster's state: versioned objects, the rules of writing them, and a history that watches are fed from.

Everything runs in one asyncio thread and nothing here awaits. A dict that goes in is copied, a dict that comes out is
the stored one and must not be changed by the caller: the store replaces objects, it never mutates them.
"""

import uuid
from collections.abc import Callable, Iterable

from sandbox.kubernetes import defaults, validation
from sandbox.kubernetes.clock import Clock, timestamp
from sandbox.kubernetes.deletion import Deletion, may_leave
from sandbox.kubernetes.errors import AlreadyExists, Conflict, Forbidden, NotFound
from sandbox.kubernetes.history import Event, History
from sandbox.kubernetes.objects import Obj, copy_of, drop_empty, key_of
from sandbox.kubernetes.resources import Kind, Resources
from sandbox.kubernetes.selectors import FieldSelector, LabelSelector
from sandbox.kubernetes.shelf import Shelf

# Inside Store the name `list` is the method.
Objects = list[Obj]
Events = list[Event]


class Store:
    """Objects of every kind by namespace and name."""

    def __init__(
        self, *, clock: Clock | None = None, resources: Resources | None = None, history: int = 20_000
    ) -> None:
        self.clock = clock or Clock()
        self.resources = resources or Resources()
        self.history = History(limit=history)
        self._shelf = Shelf(self.resources, self.history)
        self._deletion = Deletion(self._shelf, self.history, self.clock)

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def resource_version(self) -> int:
        """The version of the last write."""
        return self.history.version

    def find(self, kind: Kind | str, namespace: str | None, name: str) -> Obj | None:
        """The object, or None."""
        return self._shelf.find(kind, namespace, name)

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
        objects = self._shelf.of_kind(kind)
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
        return self._shelf.dependents(owner["metadata"]["uid"])

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
        kind = self._shelf.kind_of(obj)
        new = copy_of(obj)
        meta = new.setdefault("metadata", {})
        new["apiVersion"] = kind.api_version
        self._place(kind, meta)
        for server_side in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            meta.pop(server_side, None)
        drop_empty(meta)
        meta["uid"] = meta["uid"] if dry_run and "uid" in meta else str(uuid.uuid4())
        meta["creationTimestamp"] = timestamp(self.clock.now())
        defaults.on_create(kind, new, allocate=self._allocated_addresses)
        validation.check(kind, new, None)
        key = key_of(new)
        if self.find(kind, *key) is not None:
            raise AlreadyExists(kind.plural, kind.group, key[1])
        if dry_run:
            return new
        self._shelf.put(kind, new, None)
        return self.find(kind, *key) or new

    def replace(self, obj: Obj, *, subresource: str | None = None, dry_run: bool = False) -> Obj:
        """Store a new state of an object. With `subresource="status"` only the status counts, without it all but that.

        A state equal to the stored one changes nothing, not even resourceVersion. Raises Conflict when the given
        resourceVersion or uid is not the stored one, NotFound, Invalid.
        """
        kind = self._shelf.kind_of(obj)
        old = self.get(kind, obj["metadata"].get("namespace"), obj["metadata"]["name"])
        _check_precondition(kind, obj["metadata"], old["metadata"])
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
        if may_leave(new):
            return self._deletion.finish(kind, new)
        self._shelf.put(kind, new, old)
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
        _check_precondition(kind, {"uid": uid}, old["metadata"])
        if dry_run:
            return old
        return self._deletion.request(kind, old, propagation=propagation, grace_seconds=grace_seconds)

    # -- internals -------------------------------------------------------------------------------------------------

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
        drop_empty(meta)
        return new

    def _allocated_addresses(self) -> set[str]:
        return {service["spec"].get("clusterIP", "") for service in self._shelf.of_kind("Service").values()}


def _intent(obj: Obj) -> Obj:
    return {field: value for field, value in obj.items() if field not in {"metadata", "status"}}


def _check_precondition(kind: Kind, given: Obj, stored: Obj) -> None:
    if given.get("resourceVersion") and given["resourceVersion"] != stored["resourceVersion"]:
        raise Conflict(kind.plural, kind.group, stored["name"])
    if given.get("uid") and given["uid"] != stored["uid"]:
        why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {stored['uid']}"
        raise Conflict(kind.plural, kind.group, stored["name"], why)
