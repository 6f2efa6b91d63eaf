"""Starting a finished workflow anew from one of its events. Pure; the rules are those of daprd 1.18."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import grpc

from budcluster.durable.sidecar import events
from budcluster.durable.sidecar.instances import Instance, Message, NewInstance, NewTask, child_instance, timer_message
from budcluster.durable.sidecar.protos import NEVER_FIRES, pb


class RerunRefused(ValueError):
    """The rerun is not possible; `code` is the status to answer with."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Rerun:
    """A new instance that begins with a part of another one's history."""

    instance: Instance
    started: pb.HistoryEvent
    history: list[pb.HistoryEvent]
    tasks: list[NewTask]
    timers: list[Message]
    children: list[NewInstance]


def plan_rerun(
    request: pb.RerunWorkflowFromEventRequest,
    history: Sequence[pb.HistoryEvent],
    *,
    new_id: str,
    is_final: bool,
    is_child: bool,
    now: datetime,
    new_execution: Callable[[], str],
) -> Rerun:
    """What the new instance consists of. Raises RerunRefused."""
    if not is_final or is_child:
        reason = "is a child workflow" if is_child else "has not finished"
        raise RerunRefused(grpc.StatusCode.INVALID_ARGUMENT, f"'{request.sourceInstanceID}' {reason}")
    if new_id == request.sourceInstanceID:
        raise RerunRefused(grpc.StatusCode.INVALID_ARGUMENT, "the new instance ID must differ from the source's")
    position = _position(request, history)
    _check_arguments(request, history[position])
    kept = [_copy(event) for event in history[:position]]
    target = _target(request, history[position])
    execution_id = new_execution()
    started = _adopt_start(kept, new_id, execution_id)
    instance = Instance(new_id, execution_id, started.executionStarted.name)
    plan = Rerun(instance, started, [*kept, target], [], [], [])
    settled = {key for event in kept if (key := events.resolves(event)) is not None}
    for event in plan.history:
        _drive(plan, event, request, settled, now, new_execution, is_target=event is target)
    return plan


def _position(request: pb.RerunWorkflowFromEventRequest, history: Sequence[pb.HistoryEvent]) -> int:
    for position, event in enumerate(history):
        if event.eventId == request.eventID and event.WhichOneof("eventType") in (
            "taskScheduled",
            "timerCreated",
            "childWorkflowInstanceCreated",
        ):
            return position
    message = f"'{request.sourceInstanceID}' has no event {request.eventID} that can be rerun"
    raise RerunRefused(grpc.StatusCode.NOT_FOUND, message)


def _check_arguments(request: pb.RerunWorkflowFromEventRequest, target: pb.HistoryEvent) -> None:
    if request.overwriteInput and target.HasField("timerCreated"):
        raise RerunRefused(grpc.StatusCode.INVALID_ARGUMENT, "a timer takes no input")
    if request.HasField("newChildWorkflowInstanceID") and not target.HasField("childWorkflowInstanceCreated"):
        message = "a new child instance ID goes with a child workflow's event only"
        raise RerunRefused(grpc.StatusCode.INVALID_ARGUMENT, message)


def _copy(event: pb.HistoryEvent) -> pb.HistoryEvent:
    made = pb.HistoryEvent()
    made.CopyFrom(event)
    return made


def _target(request: pb.RerunWorkflowFromEventRequest, event: pb.HistoryEvent) -> pb.HistoryEvent:
    made = _copy(event)
    payload = getattr(made, made.WhichOneof("eventType") or "")
    payload.rerunParentInstanceInfo.instanceID = request.sourceInstanceID
    if request.overwriteInput:
        payload.ClearField("input")
        if request.HasField("input"):
            payload.input.CopyFrom(request.input)
    return made


def _adopt_start(kept: list[pb.HistoryEvent], new_id: str, execution_id: str) -> pb.HistoryEvent:
    for event in kept:
        if event.HasField("executionStarted"):
            event.executionStarted.workflowInstance.instanceId = new_id
            event.executionStarted.workflowInstance.executionId.value = execution_id
            return event
    raise RerunRefused(grpc.StatusCode.NOT_FOUND, "the source's history has no start")


def _drive(
    plan: Rerun,
    event: pb.HistoryEvent,
    request: pb.RerunWorkflowFromEventRequest,
    settled: set[tuple[str, int]],
    now: datetime,
    new_execution: Callable[[], str],
    *,
    is_target: bool,
) -> None:
    """Bring one pending piece of the kept history about again."""
    match event.WhichOneof("eventType"):
        case "taskScheduled" if is_target or ("task", event.eventId) not in settled:
            plan.tasks.append(NewTask(event.eventId, event))
        case "timerCreated" if is_target or ("timer", event.eventId) not in settled:
            if event.timerCreated.fireAt != NEVER_FIRES:
                plan.timers.append(timer_message(plan.instance, event.eventId, event.timerCreated.fireAt))
        case "childWorkflowInstanceCreated" if is_target or ("child", event.eventId) not in settled:
            created = event.childWorkflowInstanceCreated
            created.instanceId = f"{plan.instance.instance_id}:{event.eventId:04x}"
            if is_target and request.HasField("newChildWorkflowInstanceID"):
                created.instanceId = request.newChildWorkflowInstanceID
            plan.children.append(child_instance(plan.instance, event.eventId, created, now, new_execution()))
        case _:
            pass
