"""Versions, the kept history of writes, and who is told of them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sandbox.kubernetes.errors import Expired
from sandbox.kubernetes.resources import Kind

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One write. `obj` is the state after it (for DELETED the last one), `old` the state before it."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    obj: Obj
    old: Obj | None
    kind: Kind

    @property
    def version(self) -> int:
        """The resourceVersion of the write."""
        return int(self.obj["metadata"]["resourceVersion"])


@dataclass(frozen=True, slots=True)
class _Subscription:
    callback: Callable[[Event], None]
    kinds: frozenset[str] | None


class History:
    """The last writes of each kind. Subscribers are called in the order of writes, even when they write themselves."""

    def __init__(self, *, limit: int) -> None:
        self.version = 1
        self._limit = limit
        self._kept: dict[str, deque[Event]] = {}
        self._forgotten: dict[str, int] = {}
        self._compacted = 0
        self._subscriptions: list[_Subscription] = []
        self._waiting: deque[Event] = deque()
        self._is_telling = False

    def next_version(self) -> int:
        """The version of a write that is about to happen."""
        self.version += 1
        return self.version

    def record(self, event: Event) -> None:
        """Keep a write and tell of it."""
        kept = self._kept.setdefault(event.kind.key, deque())
        kept.append(event)
        if len(kept) > self._limit:
            self._forgotten[event.kind.key] = kept.popleft().version
        self._waiting.append(event)
        self._tell()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Finish a group of writes before anybody is told of them."""
        was_telling, self._is_telling = self._is_telling, True
        try:
            yield
        finally:
            self._is_telling = was_telling
            self._tell()

    def since(self, kind: str, version: int) -> list[Event]:
        """The writes after `version`. Raises Expired."""
        if version < (oldest := max(self._compacted, self._forgotten.get(kind, 0))):
            raise Expired(f"too old resource version: {version} ({oldest})")
        newer: list[Event] = []
        for event in reversed(self._kept.get(kind, ())):
            if event.version <= version:
                break
            newer.append(event)
        newer.reverse()
        return newer

    def compact(self) -> None:
        """Forget everything, as etcd does every five minutes: older versions are Expired from now on."""
        self._kept.clear()
        self._compacted = self.version

    def subscribe(self, callback: Callable[[Event], None], *, kinds: Iterable[str] | None = None) -> Callable[[], None]:
        """Call back after each write (of these kinds). Returns what ends the subscription."""
        subscription = _Subscription(callback, None if kinds is None else frozenset(kinds))
        self._subscriptions.append(subscription)

        def end() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

        return end

    def _tell(self) -> None:
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._waiting:
                event = self._waiting.popleft()
                for subscription in list(self._subscriptions):
                    if subscription.kinds is None or event.kind.key in subscription.kinds:
                        subscription.callback(event)
        finally:
            self._is_telling = False
