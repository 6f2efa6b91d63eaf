"""Keeps the latest telling events of pods, and of the claims that pods wait for."""

from collections.abc import Mapping
from typing import Any, Final

from budcluster.kube.diagnosis.events import is_telling
from budcluster.kube.diagnosis.volumes import claims_of

Json = Mapping[str, Any]
Subject = tuple[str, str]
"""A pod by its uid, or a claim by its namespace and name: a pod names its claims so."""

_KEPT: Final = 20
"""Of each pod or claim."""


class PodEvents:
    """The events of one cluster."""

    def __init__(self) -> None:
        self._events: dict[Subject, dict[str, Json]] = {}

    def see(self, event: Json) -> Subject | None:
        """Keep an event; what it is of, when it may say why a pod does not run."""
        subject = subject_of(event)
        if subject is None or not is_telling(event):
            return None
        kept, name = self._events.setdefault(subject, {}), str(event["metadata"]["name"])
        kept.pop(name, None)  # one that is told again is the latest
        kept[name] = event
        if len(kept) > _KEPT:
            del kept[next(iter(kept))]
        return subject

    def forget(self, subject: Subject) -> None:
        """Drop the events of a pod or a claim."""
        self._events.pop(subject, None)

    def of(self, pod: Json) -> list[Json]:
        """The events of a pod and of its claims."""
        return [event for subject in subjects_of(pod) for event in self._events.get(subject, {}).values()]


def subject_of(event: Json) -> Subject | None:
    """What an event is of."""
    involved = event.get("involvedObject") or {}
    if involved.get("kind") == "PersistentVolumeClaim":
        return str(involved.get("namespace", "")), str(involved.get("name", ""))
    uid = str(involved.get("uid") or "")
    return ("", uid) if uid else None


def subjects_of(pod: Json) -> list[Subject]:
    """A pod and its claims, as events speak of them."""
    metadata = pod["metadata"]
    claims = [(str(metadata.get("namespace", "")), name) for name in claims_of(pod)]
    return [("", str(metadata["uid"])), *claims]
