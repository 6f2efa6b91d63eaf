"""What every simulated process shares: store, loop, index, machines, settings, and the writing of Events."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sandbox.kubernetes.errors import Forbidden, NotFound
from sandbox.kubernetes.pod_security import PRIVILEGED
from sandbox.kubernetes.simulation.driver import Clock, Driver, Timer, Work
from sandbox.kubernetes.simulation.machines import Machine
from sandbox.kubernetes.simulation.view import View, kind_of
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]

EVENT_TTL_S = 3600.0
"""Default `--event-ttl` of the API server."""


@dataclass(frozen=True)
class Settings:
    """How the cluster behaves. Times in virtual seconds.

    `nodes` is read by `profiles.parse_nodes`; `network_mib_s` is what one node gets from registries and model hubs;
    `disk_mib_s` the speed at which weights are read into memory; `event_limit` caps the Events kept; `pod_security` is
    the level that namespaces without a label enforce.
    """

    nodes: str = "cpu:3"
    seed: int = 1
    network_mib_s: float = 400.0
    disk_mib_s: float = 1500.0
    sandbox_s: float = 0.3
    start_s: float = 0.2
    agent_s: float = 3.0
    unreachable_grace_s: float = 40.0
    event_limit: int = 50_000
    missing_images: tuple[str, ...] = ()
    pod_security: str = PRIVILEGED


@dataclass
class World:
    """Handed to every controller. `machines` is keyed by node name."""

    store: Store
    clock: Clock
    driver: Driver
    view: View
    settings: Settings
    machines: dict[str, Machine] = field(default_factory=dict)
    admission: list[Callable[[Obj], None]] = field(default_factory=list)
    """Webhooks: each may change a pod that a controller is about to create."""
    missing_images: set[str] = field(default_factory=set)
    """Globs of image references that no registry has; starts with those of the settings."""
    closed_models: set[str] = field(default_factory=set)
    """Models whose gate no token opens."""
    events: Recorder = field(init=False)

    def __post_init__(self) -> None:
        self.missing_images.update(self.settings.missing_images)
        self.events = Recorder(self)

    def now(self) -> str:
        """The virtual moment as the API writes it."""
        return stamp(self.driver.seconds())

    def after(self, seconds: float, work: Work) -> Timer:
        """Shorthand for the driver's."""
        return self.driver.after(seconds, work)

    def change(
        self, obj: Obj, change: Callable[[Obj], None], *, subresource: str | None = None
    ) -> Obj | None:  # fmt: skip
        """Read, modify and write the newest version of `obj`; None when it is gone or was made anew."""
        meta = obj["metadata"]
        uid = meta.get("uid")

        def guarded(current: Obj) -> None:
            if uid is None or current["metadata"].get("uid") == uid:
                change(current)

        return self.store.update(
            kind_of(obj), meta.get("namespace"), meta["name"], guarded, subresource=subresource
        )  # fmt: skip


def stamp(seconds: float) -> str:
    """RFC 3339 with whole seconds, as metav1.Time."""
    return _stamp(int(seconds))


@lru_cache(maxsize=64)
def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float:
    """The inverse of `stamp`."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def owner_reference(owner: Obj) -> Obj:
    """The controller reference that a child carries."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def short_hash(text: str, *, length: int = 10) -> str:
    """A stable suffix from the API's safe alphabet (no vowels, so no words)."""
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(alphabet[byte % len(alphabet)] for byte in digest[:length])


class Recorder:
    """Writes core/v1 Events; the same words about the same object raise the count of one Event."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[tuple[str, str, str], tuple[str | None, str]] = {}
        self._kept: deque[tuple[float, tuple[str, str, str]]] = deque()

    def normal(self, about: Obj, reason: str, message: str, *, source: str, host: str | None = None) -> None:
        """An Event of type Normal."""
        self._record(about, "Normal", reason, message, source, host)

    def warning(self, about: Obj, reason: str, message: str, *, source: str, host: str | None = None) -> None:
        """An Event of type Warning."""
        self._record(about, "Warning", reason, message, source, host)

    def _record(self, about: Obj, kind: str, reason: str, message: str, source: str, host: str | None) -> None:
        self._forget_old()
        meta, now = about["metadata"], self._world.now()
        key = (meta.get("uid", ""), reason, message)
        if key in self._known:
            namespace, name = self._known[key]
            if self._world.store.update("Event", namespace, name, lambda event: _again(event, now)) is not None:
                return
        namespace = meta.get("namespace") or "default"
        name = f"{meta['name']}.{short_hash('/'.join(key), length=16)}"
        if self._world.store.find("Event", namespace, name) is None:
            event = _event(about, kind, reason, message, source, host)
            event["metadata"] = {"name": name, "namespace": namespace}
            try:
                self._world.store.create({**event, "firstTimestamp": now, "lastTimestamp": now})
            except (Forbidden, NotFound):
                # The namespace is going away: its events are lost, as they are in a real cluster.
                return
        self._known[key] = (namespace, name)
        self._kept.append((self._world.driver.seconds(), key))

    def _forget_old(self) -> None:
        oldest = self._world.driver.seconds() - EVENT_TTL_S
        while self._kept and (self._kept[0][0] < oldest or len(self._kept) > self._world.settings.event_limit):
            _, key = self._kept.popleft()
            place = self._known.pop(key, None)
            if place is not None and self._world.store.find("Event", *place) is not None:
                self._world.store.delete("Event", *place)


def _again(event: Obj, now: str) -> None:
    event["count"] = event.get("count", 1) + 1
    event["lastTimestamp"] = now


def _event(about: Obj, kind: str, reason: str, message: str, source: str, host: str | None) -> Obj:
    meta = about["metadata"]
    involved = {
        "apiVersion": about.get("apiVersion", "v1"),
        "kind": about["kind"],
        "name": meta["name"],
        "uid": meta.get("uid", ""),
        "resourceVersion": meta.get("resourceVersion", ""),
    }
    if meta.get("namespace"):
        involved["namespace"] = meta["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": involved,
        "type": kind,
        "reason": reason,
        "message": message,
        "count": 1,
        "source": {"component": source, **({"host": host} if host else {})},
        "reportingComponent": source,
        "reportingInstance": host or "",
    }
