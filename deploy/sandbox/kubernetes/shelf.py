"""Where objects lie: by kind and key, by namespace and by owner. Every write gets a version and enters the history."""

from sandbox.kubernetes.errors import BadRequest
from sandbox.kubernetes.history import Event, History
from sandbox.kubernetes.objects import Key, Obj, key_of
from sandbox.kubernetes.ownership import Ownership
from sandbox.kubernetes.resources import Kind, Resources


class Shelf:
    """Takes every object as it comes: the rules of writing are the store's, those of leaving are `deletion`'s."""

    def __init__(self, resources: Resources, history: History) -> None:
        self._resources = resources
        self._history = history
        self._objects: dict[str, dict[Key, Obj]] = {}
        self._namespaces: dict[str, set[tuple[str, str]]] = {}
        self._ownership = Ownership()

    def kind_of(self, obj: Obj) -> Kind:
        """Raises BadRequest for a kind that nobody has registered."""
        if (kind := self._resources.of_object(obj)) is None:
            raise BadRequest(f'no kind "{obj.get("kind", "")}" is registered for version "{obj.get("apiVersion", "")}"')
        return kind

    def of_kind(self, kind: Kind | str) -> dict[Key, Obj]:
        """All objects of a kind."""
        return self._objects.get(self._resources.get(kind).key, {})

    def find(self, kind: Kind | str, namespace: str | None, name: str) -> Obj | None:
        """The object, or None."""
        return self.of_kind(kind).get((namespace or "", name))

    def within(self, namespace: str) -> list[tuple[str, str]]:
        """Kind and name of all that lies in a namespace."""
        return sorted(self._namespaces.get(namespace, ()))

    def dependents(self, uid: str) -> list[Obj]:
        """The objects that name this one among their ownerReferences."""
        found = (self.find(kind, *key) for kind, key in self._ownership.dependents(uid))
        return [obj for obj in found if obj is not None]

    def with_uid(self, uid: str) -> Obj | None:
        """The object that has this uid."""
        place = self._ownership.place(uid)
        return self.find(place[0], *place[1]) if place else None

    def put(self, kind: Kind, new: Obj, old: Obj | None) -> None:
        """Lay an object down, in the place of `old`."""
        key = key_of(new)
        new["metadata"]["resourceVersion"] = str(self._history.next_version())
        self._objects.setdefault(kind.key, {})[key] = new
        if old is None and key[0]:
            self._namespaces.setdefault(key[0], set()).add((kind.key, key[1]))
        self._ownership.record(kind.key, key, new, old)
        self._history.record(Event("ADDED" if old is None else "MODIFIED", new, old, kind))

    def take(self, kind: Kind, last: Obj) -> Obj:
        """Take an object away; `last` is the state it went in. That state, with its version."""
        key = key_of(last)
        old = self._objects[kind.key].pop(key)
        gone = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self._history.next_version())}}
        self._namespaces.get(key[0], set()).discard((kind.key, key[1]))
        self._ownership.record(kind.key, key, None, old)
        self._history.record(Event("DELETED", gone, old, kind))
        return gone
