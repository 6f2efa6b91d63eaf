"""Event objects in both of their groups: v1 is stored, events.k8s.io/v1 is a view of it."""

from typing import Any

Obj = dict[str, Any]

_RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_BACK = {new: old for old, new in _RENAMED.items()}


def to_events_v1(event: Obj) -> Obj:
    """A stored Event as events.k8s.io/v1 shows it."""
    renamed = {_RENAMED.get(field, field): value for field, value in event.items()}
    return {**renamed, "apiVersion": "events.k8s.io/v1"}


def to_core_v1(event: Obj) -> Obj:
    """An events.k8s.io/v1 Event as it is stored."""
    renamed = {_BACK.get(field, field): value for field, value in event.items()}
    return {**renamed, "apiVersion": "v1"}
