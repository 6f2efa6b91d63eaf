"""An object as JSON: its key, a copy of it, and its metadata as an API server writes it."""

from typing import Any

import orjson

Obj = dict[str, Any]
Key = tuple[str, str]


def copy_of(obj: Obj) -> Obj:
    """A deep copy of a JSON object; through orjson, which is several times faster than copy.deepcopy."""
    copied: Obj = orjson.loads(orjson.dumps(obj))
    return copied


def key_of(obj: Obj) -> Key:
    """(namespace or empty, name)."""
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


def drop_empty(meta: Obj) -> None:
    """Leave out what is empty of labels, annotations, finalizers and owners."""
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in meta and not meta[field]:
            del meta[field]
