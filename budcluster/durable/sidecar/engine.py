"""What one turn of a workflow means. Pure: no clock, no database, no network.

A turn takes the messages that wait for an instance, shows them with the history to the worker, and turns the worker's
answer into an Outcome: everything that has to be written, in one transaction. The rules follow durabletask-go as it is
built into Dapr 1.18.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from budcluster.durable.sidecar import events
from budcluster.durable.sidecar.limits import Limits
from budcluster.durable.sidecar.protos import (
    COMPLETED,
    CONTINUED_AS_NEW,
    FAILED,
    NEVER_FIRES,
    RUNNING,
    STALLED,
    SUSPENDED,
    TERMINATED,
    Timestamp,
    pb,
)


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


@dataclass(slots=True)
class Outcome:
    """Everything one committed turn writes."""

    status: int
    suspended: bool
    custom_status: str | None
    history: list[pb.HistoryEvent]
    consumed: list[int]
    output: str | None = None
    failure: pb.TaskFailureDetails | None = None
    tasks: list[NewTask] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    children: list[NewInstance] = field(default_factory=list)
    ends_children: pb.HistoryEvent | None = None
    """Where set, the event goes to every child that has not ended."""
    next_generation: NewInstance | None = None
    carried: list[pb.HistoryEvent] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        return self.status in (COMPLETED, FAILED, TERMINATED)


def begin(instance: Instance, past: Past, inbox: Sequence[Waiting], now: datetime) -> Turn:
    """Put the waiting messages in order and drop those that must not be seen (again)."""
    started = events.event(now, workflowStarted=pb.WorkflowStartedEvent())
    taken: list[tuple[int, pb.HistoryEvent]] = []
    seen = set(past.settled)
    for message in inbox:
        if message.execution_id not in (None, instance.execution_id):
            continue
        key = events.resolves(message.event)
        if key is not None and key in seen:
            continue
        if key is not None:
            seen.add(key)
        # Events raised while a new generation was being made lie before its start and before what it carries over.
        taken.append((0 if key == ("start", 0) else 1 if message.execution_id else 2, message.event))
    if any(place == 0 for place, _ in taken):
        taken.sort(key=lambda placed: placed[0])
    ordered = [message for _, message in taken]
    terminating = any(message.HasField("executionTerminated") for message in ordered)
    return Turn(instance, past, [started, *ordered], [message.id for message in inbox], terminating)


def conclude(
    turn: Turn, response: pb.WorkflowResponse, *, now: datetime, limits: Limits, new_id: Callable[[], str]
) -> Outcome:
    """Turn the worker's answer into what has to be written.

    Raises PayloadTooLarge when the worker should be told that its answer carries too much.
    """
    _check_payloads(response, limits)
    outcome = _Conclusion(turn, response, now, new_id).outcome()
    grown = turn.past.size + sum(happened.ByteSize() for happened in outcome.history)
    if grown <= limits.history_bytes or outcome.is_final or outcome.next_generation is not None:
        return outcome
    message = (
        f"The history has {grown} bytes and at most {limits.history_bytes} are allowed; "
        "split the work into child workflows or continue as new."
    )
    return _Conclusion(turn, failed("HistoryTooLarge", message), now, new_id).outcome()


def failed(error_type: str, message: str) -> pb.WorkflowResponse:
    """The answer of a worker whose workflow raised, for failures that the sidecar finds itself."""
    action = pb.WorkflowAction(id=-1)
    action.completeWorkflow.workflowStatus = FAILED
    action.completeWorkflow.failureDetails.CopyFrom(events.failure(error_type, message))
    return pb.WorkflowResponse(actions=[action])


def _check_payloads(response: pb.WorkflowResponse, limits: Limits) -> None:
    limits.check("The custom status", response.customStatus.value)
    for action in response.actions:
        match action.WhichOneof("workflowActionType"):
            case "scheduleTask":
                limits.check(f"The input of activity {action.scheduleTask.name!r}", action.scheduleTask.input.value)
            case "createChildWorkflow":
                child = action.createChildWorkflow
                limits.check(f"The input of child workflow {child.name!r}", child.input.value)
            case "completeWorkflow":
                limits.check("The output of the workflow", action.completeWorkflow.result.value)
            case _:
                pass


class _Conclusion:
    """Walks over one answer's actions and collects the outcome."""

    def __init__(self, turn: Turn, response: pb.WorkflowResponse, now: datetime, new_id: Callable[[], str]) -> None:
        self._turn = turn
        self._instance = turn.instance
        self._response = response
        self._now = now
        self._new_id = new_id
        custom = response.customStatus.value if response.HasField("customStatus") else turn.instance.custom_status
        self._made = Outcome(RUNNING, turn.instance.suspended, custom, list(turn.new_events), turn.consumed)

    def outcome(self) -> Outcome:
        made = self._made
        actions = list(self._response.actions)
        stalled = any(action.HasField("workflowVersionNotAvailable") for action in actions)
        if stalled and not self._turn.is_terminating:
            # Nothing happened: the messages stay and are shown to a worker that has the version.
            return Outcome(STALLED, self._instance.suspended, self._instance.custom_status, [], [])
        self._note_version()
        self._follow_suspension()
        completion: pb.WorkflowAction | None = None
        for action in actions:
            if action.HasField("completeWorkflow"):
                completion = action
            elif not self._turn.is_terminating:
                self._act(action)
        if self._turn.is_terminating and not _really_ends(completion):
            completion = self._forced_termination()
        if completion is not None:
            self._complete(completion)
        elif made.suspended:
            made.status = SUSPENDED
        return made

    def _note_version(self) -> None:
        """Patches and versions that this turn used belong to the turn's own start event: replay asks for them."""
        if self._response.HasField("version"):
            self._made.history[0].workflowStarted.version.CopyFrom(self._response.version)

    def _follow_suspension(self) -> None:
        for happened in self._turn.new_events:
            if happened.HasField("executionSuspended"):
                self._made.suspended = True
            elif happened.HasField("executionResumed"):
                self._made.suspended = False

    def _act(self, action: pb.WorkflowAction) -> None:
        match action.WhichOneof("workflowActionType"):
            case "scheduleTask":
                self._schedule_task(action)
            case "createTimer":
                self._create_timer(action)
            case "createChildWorkflow":
                self._create_child(action)
            case _:
                # sendEvent, terminateWorkflow and createDetachedWorkflow: the Python SDK never sends them.
                pass

    def _schedule_task(self, action: pb.WorkflowAction) -> None:
        wanted = action.scheduleTask
        scheduled = pb.TaskScheduledEvent(name=wanted.name, taskExecutionId=wanted.taskExecutionId)
        if wanted.HasField("version"):
            scheduled.version.CopyFrom(wanted.version)
        if wanted.HasField("input"):
            scheduled.input.CopyFrom(wanted.input)
        happened = events.event(self._now, action.id, taskScheduled=scheduled)
        self._made.history.append(happened)
        self._made.tasks.append(NewTask(action.id, happened))

    def _create_timer(self, action: pb.WorkflowAction) -> None:
        wanted = action.createTimer
        created = pb.TimerCreatedEvent(fireAt=wanted.fireAt)
        if wanted.HasField("name"):
            created.name = wanted.name
        origin = wanted.WhichOneof("origin")
        if origin is not None:
            getattr(created, origin).CopyFrom(getattr(wanted, origin))
        self._made.history.append(events.event(self._now, action.id, timerCreated=created))
        if wanted.fireAt != NEVER_FIRES:
            self._made.messages.append(timer_message(self._instance, action.id, wanted.fireAt))

    def _create_child(self, action: pb.WorkflowAction) -> None:
        wanted = action.createChildWorkflow
        child_id = wanted.instanceId or f"{self._instance.instance_id}:{action.id:04x}"
        created = pb.ChildWorkflowInstanceCreatedEvent(instanceId=child_id, name=wanted.name)
        if wanted.HasField("version"):
            created.version.CopyFrom(wanted.version)
        if wanted.HasField("input"):
            created.input.CopyFrom(wanted.input)
        self._made.history.append(events.event(self._now, action.id, childWorkflowInstanceCreated=created))
        self._made.children.append(child_instance(self._instance, action.id, created, self._now, self._new_id()))

    def _forced_termination(self) -> pb.WorkflowAction:
        wanted = self._termination()
        action = pb.WorkflowAction(id=-1)
        action.completeWorkflow.workflowStatus = TERMINATED
        if wanted.HasField("input"):
            action.completeWorkflow.result.CopyFrom(wanted.input)
        return action

    def _termination(self) -> pb.ExecutionTerminatedEvent:
        return next(e.executionTerminated for e in self._turn.new_events if e.HasField("executionTerminated"))

    def _complete(self, action: pb.WorkflowAction) -> None:
        done = action.completeWorkflow
        if done.workflowStatus == CONTINUED_AS_NEW:
            self._continue_as_new(done)
            return
        made = self._made
        made.status = done.workflowStatus
        made.suspended = False
        made.output = done.result.value if done.HasField("result") else None
        completed = pb.ExecutionCompletedEvent(workflowStatus=done.workflowStatus)
        if done.HasField("result"):
            completed.result.CopyFrom(done.result)
        if done.HasField("failureDetails"):
            made.failure = events.trimmed(done.failureDetails)
            completed.failureDetails.CopyFrom(made.failure)
        made.history.append(events.event(self._now, action.id, executionCompleted=completed))
        # What was scheduled in the same breath ends with the instance.
        made.tasks.clear()
        made.messages.clear()
        made.children.clear()
        if made.status == TERMINATED and self._turn.is_terminating and self._termination().recurse:
            ended = pb.ExecutionTerminatedEvent(recurse=True)
            made.ends_children = events.event(self._now, executionTerminated=ended)
        if self._instance.parent is not None:
            made.messages.append(self._report_to(self._instance.parent))

    def _report_to(self, parent: Parent) -> Message:
        made = self._made
        if made.status == COMPLETED:
            completed = pb.ChildWorkflowInstanceCompletedEvent(taskScheduledId=parent.task_id)
            if made.output is not None:
                completed.result.value = made.output
            report = events.event(self._now, childWorkflowInstanceCompleted=completed)
        else:
            details = made.failure or events.failure(
                "WorkflowTerminated", f"Child workflow {self._instance.instance_id!r} was terminated."
            )
            report = child_failed(self._now, parent.task_id, details)
        return Message(parent.instance_id, parent.execution_id, report, self._now)

    def _continue_as_new(self, done: pb.CompleteWorkflowAction) -> None:
        made = self._made
        made.tasks.clear()
        made.messages.clear()
        made.children.clear()
        previous = self._start_event()
        started = pb.ExecutionStartedEvent()
        started.CopyFrom(previous)
        started.ClearField("input")
        started.ClearField("scheduledStartTimestamp")
        if done.HasField("result"):
            started.input.CopyFrom(done.result)
        execution_id = self._new_id()
        started.workflowInstance.executionId.value = execution_id
        made.next_generation = NewInstance(
            self._instance.instance_id,
            execution_id,
            events.event(self._now, executionStarted=started),
            self._instance.parent,
        )
        made.carried = list(done.carryoverEvents)

    def _start_event(self) -> pb.ExecutionStartedEvent:
        for happened in (*self._turn.past.events, *self._turn.new_events):
            if happened.HasField("executionStarted"):
                return happened.executionStarted
        return pb.ExecutionStartedEvent(name=self._instance.name)


def _really_ends(completion: pb.WorkflowAction | None) -> bool:
    return completion is not None and completion.completeWorkflow.workflowStatus != CONTINUED_AS_NEW


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
    if created.HasField("version"):
        started.version.CopyFrom(created.version)
    if created.HasField("input"):
        started.input.CopyFrom(created.input)
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
