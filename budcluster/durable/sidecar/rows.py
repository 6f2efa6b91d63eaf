"""What the store takes and gives, and how it lies in rows. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from budcluster.durable.sidecar.conclusion import Outcome
from budcluster.durable.sidecar.instances import Instance, NewInstance, Parent, Waiting
from budcluster.durable.sidecar.protos import pb


@dataclass(frozen=True, slots=True)
class Lease:
    """A turn that this process may run, until it commits or gives the token back."""

    token: str
    instance: Instance
    inbox: list[Waiting]


@dataclass(frozen=True, slots=True)
class TaskLease:
    """An activity that this process may have run."""

    id: int
    token: str
    instance_id: str
    execution_id: str
    task_id: int
    event: pb.HistoryEvent
    deliveries: int


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of an activity's result: the turn it wakes, where that could be leased at once."""

    instance_id: str
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Committed:
    """A turn that is written. `task_ids` are the rows of the outcome's tasks, in their order."""

    task_ids: list[int]
    duplicates: int
    """Children that were refused because an active instance has their id."""


def lease_of(row: asyncpg.Record) -> Lease:
    """The turn in a row of LEASE_TURNS or FINISH_TASK."""
    parent = None
    if row["parent_id"] is not None:
        parent = Parent(row["parent_id"], row["parent_execution"], row["parent_task"])
    instance = Instance(
        row["instance_id"],
        row["execution_id"],
        row["name"],
        row["suspended"],
        row["history_events"],
        row["deliveries"],
        parent,
        row["custom_status"],
    )
    waiting = zip(row["ids"] or (), row["executions"] or (), row["events"] or (), strict=True)
    inbox = [Waiting(id_, execution, pb.HistoryEvent.FromString(event)) for id_, execution, event in waiting]
    return Lease(row["token"], instance, inbox)


def task_lease_of(row: asyncpg.Record) -> TaskLease:
    """The activity in a row of LEASE_TASKS."""
    return TaskLease(
        row["id"],
        row["token"],
        row["instance_id"],
        row["execution_id"],
        row["task_id"],
        pb.HistoryEvent.FromString(row["event"]),
        row["deliveries"],
    )


def start_columns(of: Instance | NewInstance, started: pb.HistoryEvent) -> tuple[str | None, ...]:
    """Ids, name, version and input of an instance that begins with this event."""
    start = started.executionStarted
    version = start.version.value if start.HasField("version") else None
    return (of.instance_id, of.execution_id, start.name, version, input_of(started))


def input_of(started: pb.HistoryEvent) -> str | None:
    """What an instance begins with."""
    start = started.executionStarted
    return start.input.value if start.HasField("input") else None


def parent_columns(parent: Parent | None) -> tuple[str | None, str | None, int | None]:
    """The ids of a child's parent, and of the task that waits for it."""
    return (None, None, None) if parent is None else (parent.instance_id, parent.execution_id, parent.task_id)


def turn_columns(lease: Lease, outcome: Outcome, owner: int, task_tokens: Sequence[str | None]) -> tuple[object, ...]:
    """The arguments of COMMIT_TURN."""
    return (
        lease.instance.instance_id,
        lease.token,
        owner,
        outcome.status,
        outcome.suspended,
        outcome.custom_status,
        outcome.output,
        None if outcome.failure is None else outcome.failure.SerializeToString(),
        outcome.is_final,
        encoded(outcome.history),
        outcome.consumed,
        [task.task_id for task in outcome.tasks],
        encoded(task.event for task in outcome.tasks),
        [None if token is None else owner for token in task_tokens],
        list(task_tokens),
        [message.instance_id for message in outcome.messages],
        [message.execution_id for message in outcome.messages],
        encoded(message.event for message in outcome.messages),
        [message.visible_at for message in outcome.messages],
        None if outcome.ends_children is None else outcome.ends_children.SerializeToString(),
    )


def encoded(history: Iterable[pb.HistoryEvent]) -> list[bytes]:
    """Events as they are kept."""
    return [event.SerializeToString() for event in history]
