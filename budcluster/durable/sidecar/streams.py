"""Connected workers: who gets which work item, and what each of them still remembers of an instance's history."""

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from budcluster.durable.sidecar.instances import Instance, Past, Turn
from budcluster.durable.sidecar.protos import pb


@dataclass(eq=False, slots=True)
class Stream:
    """One worker's open call for work items."""

    number: int
    keeps_history: bool
    """Whether the worker keeps the history it has seen, so that only what is new need be sent."""
    items: "asyncio.Queue[pb.WorkItem | None]" = field(default_factory=asyncio.Queue)
    tokens: set[str] = field(default_factory=set)
    """Work in this worker's hands."""
    warm: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Instance id to its generation and the number of past events that went with the turn before."""

    def send_turn(self, token: str, turn: Turn) -> None:
        """Hand a turn to the worker."""
        instance = turn.instance
        execution_id, count = self.warm.get(instance.instance_id, ("", 0))
        request = turn.request(count if execution_id == instance.execution_id else None)
        if self.keeps_history:
            # The worker keeps the past it was shown, never the turn's own events: they are not committed yet.
            self.warm[instance.instance_id] = (instance.execution_id, len(turn.past.events))
        self.tokens.add(token)
        self.items.put_nowait(pb.WorkItem(workflowRequest=request, completionToken=token))

    def forget(self, instance_id: str) -> None:
        """Send this instance's whole history next time."""
        self.warm.pop(instance_id, None)

    def send_task(self, token: str, request: pb.ActivityRequest) -> None:
        """Hand an activity to the worker."""
        self.tokens.add(token)
        self.items.put_nowait(pb.WorkItem(activityRequest=request, completionToken=token))

    def end(self) -> None:
        """Close the stream after what is already queued."""
        self.items.put_nowait(None)


class Streams:
    """All connected workers."""

    def __init__(self) -> None:
        self._open: list[Stream] = []
        self._opened = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._open))

    def open(self, *, keeps_history: bool) -> Stream:
        """A worker connected."""
        self._opened += 1
        stream = Stream(self._opened, keeps_history)
        self._open.append(stream)
        return stream

    def close(self, stream: Stream) -> None:
        """A worker went away."""
        if stream in self._open:
            self._open.remove(stream)

    def for_turn(self, instance_id: str) -> Stream:
        """Always the same worker for an instance while the workers stay the same (rendezvous hashing)."""
        if len(self._open) == 1:
            return self._open[0]
        return max(self._open, key=lambda stream: _weight(stream.number, instance_id))

    def for_task(self) -> Stream:
        """The worker with the least in its hands."""
        return min(self._open, key=lambda stream: len(stream.tokens))


def _weight(number: int, instance_id: str) -> bytes:
    return hashlib.blake2b(f"{number}/{instance_id}".encode(), digest_size=8).digest()


class Histories:
    """Committed histories of instances that had a turn lately: saves reading them again.

    Bounded; a miss is harmless.
    """

    def __init__(self, *, at_most_bytes: int = 4 * 1024 * 1024, at_most_events: int = 10_000) -> None:
        self._kept: dict[str, tuple[Instance, Past]] = {}
        self._at_most_bytes = at_most_bytes
        self._at_most_events = at_most_events
        self._bytes = 0
        self._events = 0

    def take(self, instance: Instance) -> Past | None:
        """Remove and return the past of exactly this generation at exactly this length."""
        known = self.take_latest(instance.instance_id, instance.execution_id)
        return known[1] if known is not None and len(known[1].events) == instance.history_events else None

    def take_latest(self, instance_id: str, execution_id: str) -> tuple[Instance, Past] | None:
        """Remove and return what was known of this generation after its last turn here."""
        found = self._kept.pop(instance_id, None)
        if found is None:
            return None
        self._bytes -= found[1].size
        self._events -= len(found[1].events)
        return found if found[0].execution_id == execution_id else None

    def keep(self, instance: Instance, past: Past) -> None:
        """Remember an instance as it is after a turn; drops the longest unused ones over the bounds."""
        self.take_latest(instance.instance_id, "")
        self._kept[instance.instance_id] = (instance, past)
        self._bytes += past.size
        self._events += len(past.events)
        while self._kept and (self._bytes > self._at_most_bytes or self._events > self._at_most_events):
            self.take_latest(next(iter(self._kept)), "")
