"""Which object owns which: the index that garbage collection asks."""

from typing import Any

Obj = dict[str, Any]
Place = tuple[str, tuple[str, str]]


class Ownership:
    """Living uids, and for each owner's uid the places of the objects that refer to it."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._dependents: dict[str, dict[Place, None]] = {}

    def record(self, kind: str, key: tuple[str, str], new: Obj | None, old: Obj | None) -> None:
        """Follow one write; `new` is None for a removal."""
        place = (kind, key)
        if new is None and old is not None:
            self._places.pop(old["metadata"]["uid"], None)
        elif new is not None:
            self._places[new["metadata"]["uid"]] = place
        before, after = _owners(old), _owners(new)
        for uid in before - after:
            self._dependents.get(uid, {}).pop(place, None)
        for uid in after - before:
            self._dependents.setdefault(uid, {})[place] = None

    def dependents(self, uid: str) -> list[Place]:
        """Where the objects lie that refer to this owner."""
        return list(self._dependents.get(uid, ()))

    def place(self, uid: str) -> Place | None:
        """Where the object with this uid lies, while it lives."""
        return self._places.get(uid)


def _owners(obj: Obj | None) -> set[str]:
    return {ref["uid"] for ref in obj["metadata"].get("ownerReferences") or ()} if obj else set()
