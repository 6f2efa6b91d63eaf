"""How objects leave: finalizers, grace periods, what goes with its owner, and namespaces that empty themselves."""

from collections.abc import Callable

from sandbox.kubernetes.clock import Clock, timestamp
from sandbox.kubernetes.errors import Forbidden
from sandbox.kubernetes.history import History
from sandbox.kubernetes.objects import Obj, copy_of, drop_empty, key_of
from sandbox.kubernetes.resources import Kind
from sandbox.kubernetes.shelf import Shelf

_FOREGROUND = "foregroundDeletion"
_KEPT_NAMESPACES = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})


class Deletion:
    """Takes objects from the shelf once nothing holds them any more, and then what goes with them."""

    def __init__(self, shelf: Shelf, history: History, clock: Clock) -> None:
        self._shelf = shelf
        self._history = history
        self._clock = clock

    def request(self, kind: Kind, old: Obj, *, propagation: str, grace_seconds: int | None = None) -> Obj | None:
        """What is left of an object that somebody deletes: None when it is gone at once."""
        new = copy_of(old)
        self._mark(kind, new, propagation=propagation, grace_seconds=grace_seconds)
        if kind.key == "Namespace":
            return self._terminate_namespace(kind, new, old)
        if may_leave(new):
            self.finish(kind, new)
            return None
        if new != old:
            self._shelf.put(kind, new, old)
        if _FOREGROUND in new["metadata"].get("finalizers", ()):
            self._release_dependents(new, propagation="Foreground")
            self._finish_foreground(new["metadata"]["uid"])
        return self._shelf.find(kind, *key_of(new))

    def finish(self, kind: Kind, last: Obj) -> Obj:
        """Take the object away, then what it owned, and let those go that waited for it."""
        with self._history.held():
            gone = self._shelf.take(kind, last)
            self._release_dependents(gone, propagation="Background")
            for owner in gone["metadata"].get("ownerReferences", ()):
                self._finish_foreground(owner["uid"])
            self._finish_namespace(key_of(gone)[0])
        return gone

    def _mark(self, kind: Kind, new: Obj, *, propagation: str, grace_seconds: int | None) -> None:
        meta = new["metadata"]
        grace = _grace(kind, new, grace_seconds)
        if "deletionTimestamp" not in meta or grace < meta.get("deletionGracePeriodSeconds", 0):
            meta["deletionTimestamp"] = timestamp(self._clock.now())
            meta["deletionGracePeriodSeconds"] = grace
        if propagation == "Orphan":
            for dependent in self._shelf.dependents(meta["uid"]):
                self._drop_owner(dependent, meta["uid"])
        elif propagation == "Foreground" and _FOREGROUND not in meta.get("finalizers", ()):
            meta["finalizers"] = [*meta.get("finalizers", ()), _FOREGROUND]

    def _release_dependents(self, owner: Obj, *, propagation: str) -> None:
        """Delete what this one owned; what has another living owner only forgets this one."""
        uid = owner["metadata"]["uid"]
        for dependent in self._shelf.dependents(uid):
            owners = dependent["metadata"]["ownerReferences"]
            if any(ref["uid"] != uid and self._shelf.with_uid(ref["uid"]) for ref in owners):
                self._drop_owner(dependent, uid)
            elif "deletionTimestamp" not in dependent["metadata"]:
                self.request(self._shelf.kind_of(dependent), dependent, propagation=propagation)

    def _drop_owner(self, dependent: Obj, uid: str) -> None:
        def drop(meta: Obj) -> None:
            meta["ownerReferences"] = [ref for ref in meta.get("ownerReferences", ()) if ref["uid"] != uid]

        self._change(dependent, drop)

    def _finish_foreground(self, uid: str) -> None:
        """Let an owner go that waited for its dependents, once none is left that blocks it."""
        owner = self._shelf.with_uid(uid)
        if owner is None or _FOREGROUND not in owner["metadata"].get("finalizers", ()):
            return
        blocking = (
            ref.get("blockOwnerDeletion")
            for dependent in self._shelf.dependents(uid)
            for ref in dependent["metadata"]["ownerReferences"]
            if ref["uid"] == uid
        )
        if not any(blocking):
            self._change(owner, lambda meta: meta["finalizers"].remove(_FOREGROUND))

    def _change(self, old: Obj, change: Callable[[Obj], None]) -> None:
        """Write other metadata; whoever is held by nothing else then goes."""
        kind, new = self._shelf.kind_of(old), copy_of(old)
        change(new["metadata"])
        drop_empty(new["metadata"])
        if may_leave(new):
            self.finish(kind, new)
        else:
            self._shelf.put(kind, new, old)

    def _terminate_namespace(self, kind: Kind, new: Obj, old: Obj) -> Obj:
        name = new["metadata"]["name"]
        if name in _KEPT_NAMESPACES:
            raise Forbidden("namespaces", "", name, "this namespace may not be deleted")
        new["status"] = {**new.get("status", {}), "phase": "Terminating"}
        if "deletionTimestamp" not in old["metadata"]:
            self._shelf.put(kind, new, old)
        with self._history.held():
            for child_kind, child in self._shelf.within(name):
                if (obj := self._shelf.find(child_kind, name, child)) is not None:
                    self.request(self._shelf.kind_of(obj), obj, propagation="Background")
        self._finish_namespace(name)
        return new

    def _finish_namespace(self, name: str) -> None:
        home = self._shelf.find("Namespace", None, name) if name else None
        if home is None or "deletionTimestamp" not in home["metadata"] or self._shelf.within(name):
            return
        if not home["metadata"].get("finalizers"):
            self.finish(self._shelf.kind_of(home), home)


def may_leave(obj: Obj) -> bool:
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
