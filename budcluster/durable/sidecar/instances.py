"""A workflow's instances: what is known of one, what is sent to it, its history, and the turn that it gets. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from budcluster.durable.sidecar import events
from budcluster.durable.sidecar.protos import Timestamp, pb


@dataclass(frozen=True, slots=True)
class Parent:
    """The workflow that waits for this one as its child."""

    instance_id: str
    execution_id: str
    task_id: int


@dataclass(frozen=True, slots=True)
class Instance:
    """What the store says about an instance when a turn begins."""

    instance_id: str
    execution_id: str
    name: str
    suspended: bool = False
    history_events: int = 0
    deliveries: int = 1
    parent: Parent | None = None
    custom_status: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """An event on its way to an instance. `execution_id` None: to whichever generation lives."""

    instance_id: str
    execution_id: str | None
    event: pb.HistoryEvent
    visible_at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that lies in the instance's inbox."""

    id: int
    execution_id: str | None
    event: pb.HistoryEvent


@dataclass(frozen=True, slots=True)
class NewTask:
    """An activity to run."""

    task_id: int
    event: pb.HistoryEvent


@dataclass(frozen=True, slots=True)
class NewInstance:
    """An instance to create."""

    instance_id: str
    execution_id: str
    started: pb.HistoryEvent
    parent: Parent | None = None


class Past:
    """The committed history of one generation, with what is needed to drop a message that comes twice."""

    __slots__ = ("events", "settled", "size")

    def __init__(self, history: Iterable[pb.HistoryEvent] = ()) -> None:
        self.events: list[pb.HistoryEvent] = []
        self.settled: set[tuple[str, int]] = set()
        self.size = 0
        self.extend(history)

    def extend(self, history: Iterable[pb.HistoryEvent]) -> None:
        """Append events that were committed."""
        for happened in history:
            self.events.append(happened)
            self.size += happened.ByteSize()
            if (key := events.resolves(happened)) is not None:
                self.settled.add(key)


@dataclass(slots=True)
class Turn:
    """One turn in the hands of a worker."""

    instance: Instance
    past: Past
    new_events: list[pb.HistoryEvent]
    consumed: list[int]
    """Ids of the messages that go when the turn is committed, those that were dropped included."""
    is_terminating: bool

    def request(self, warm: int | None = None) -> pb.WorkflowRequest:
        """The work item; `warm` = how many past events this stream's worker has kept from the turn before."""
        request = pb.WorkflowRequest(instanceId=self.instance.instance_id, newEvents=self.new_events)
        request.executionId.value = self.instance.execution_id
        if warm is not None and 0 < warm <= len(self.past.events):
            request.cachedHistory.eventCount = warm
            request.pastEvents.extend(self.past.events[warm:])
        else:
            request.pastEvents.extend(self.past.events)
        return request


def timer_message(instance: Instance, timer_id: int, fire_at: Timestamp) -> Message:
    """The message that fires a timer when its time has come."""
    fired = pb.TimerFiredEvent(timerId=timer_id, fireAt=fire_at)
    due = events.moment_of(fire_at)
    return Message(instance.instance_id, instance.execution_id, events.event(due, timerFired=fired), due)


def child_instance(
    parent: Instance, task_id: int, created: pb.ChildWorkflowInstanceCreatedEvent, now: datetime, execution_id: str
) -> NewInstance:
    """The child workflow that `created` announces."""
    started = pb.ExecutionStartedEvent(name=created.name)
    events.copy_call(created, started)
    started.workflowInstance.instanceId = created.instanceId
    started.workflowInstance.executionId.value = execution_id
    above = started.parentInstance
    above.taskScheduledId = task_id
    above.name.value = parent.name
    above.workflowInstance.instanceId = parent.instance_id
    above.workflowInstance.executionId.value = parent.execution_id
    return NewInstance(
        created.instanceId,
        execution_id,
        events.event(now, executionStarted=started),
        Parent(parent.instance_id, parent.execution_id, task_id),
    )


def child_failed(now: datetime, task_id: int, details: pb.TaskFailureDetails) -> pb.HistoryEvent:
    """The event that tells a parent that its child did not succeed."""
    failed_child = pb.ChildWorkflowInstanceFailedEvent(taskScheduledId=task_id, failureDetails=details)
    return events.event(now, childWorkflowInstanceFailed=failed_child)
