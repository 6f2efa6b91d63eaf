"""What a worker's answer writes. Pure; the rules follow durabletask-go as it is built into Dapr 1.18."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from budcluster.durable.sidecar import events
from budcluster.durable.sidecar.instances import (
    Message,
    NewInstance,
    NewTask,
    Parent,
    Turn,
    child_failed,
    child_instance,
    timer_message,
)
from budcluster.durable.sidecar.protos import (
    COMPLETED,
    CONTINUED_AS_NEW,
    FAILED,
    NEVER_FIRES,
    RUNNING,
    STALLED,
    SUSPENDED,
    TERMINATED,
    pb,
)


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
        """Whether the instance ends with this turn."""
        return self.status in (COMPLETED, FAILED, TERMINATED)


class Conclusion:
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
        """What the whole answer writes."""
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
        events.copy_call(wanted, scheduled)
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
        events.copy_call(wanted, created)
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
