"""Which part of a finished history a rerun keeps, and what it does again. Pure."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import grpc
import pytest

from budcluster.durable.sidecar import events
from budcluster.durable.sidecar.protos import StringValue, pb
from budcluster.durable.sidecar.rerun import Rerun, RerunRefused, plan_rerun

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def scheduled(task_id: int) -> pb.HistoryEvent:
    return events.event(NOW, task_id, taskScheduled=pb.TaskScheduledEvent(name="step", input=StringValue(value="1")))


HISTORY = [
    events.event(NOW, workflowStarted=pb.WorkflowStartedEvent()),
    events.event(NOW, executionStarted=pb.ExecutionStartedEvent(name="order")),
    scheduled(1),
    scheduled(2),
    events.event(NOW, 3, timerCreated=pb.TimerCreatedEvent(fireAt=events.timestamp(NOW + timedelta(hours=1)))),
    events.task_completed(NOW, 1, pb.ActivityResponse(result=StringValue(value="1"))),
    events.event(NOW, 4, childWorkflowInstanceCreated=pb.ChildWorkflowInstanceCreatedEvent(instanceId="c", name="sub")),
    scheduled(5),
]


def plan(
    event_id: int, *, new_id: str = "again", is_final: bool = True, is_child: bool = False, **wanted: Any
) -> Rerun:
    numbers = count(2)
    request = pb.RerunWorkflowFromEventRequest(sourceInstanceID="old", eventID=event_id, **wanted)
    return plan_rerun(
        request,
        HISTORY,
        new_id=new_id,
        is_final=is_final,
        is_child=is_child,
        now=NOW,
        new_execution=lambda: f"run-{next(numbers)}",
    )


def test_what_was_pending_before_the_event_and_the_event_itself_are_done_again() -> None:
    made = plan(5)
    assert [task.task_id for task in made.tasks] == [2, 5]
    assert [timer.event.timerFired.timerId for timer in made.timers] == [3]
    assert [child.instance_id for child in made.children] == ["again:0004"]
    assert len(made.history) == len(HISTORY)


def test_the_new_instance_starts_under_its_own_id_and_points_to_its_source() -> None:
    made = plan(2)
    assert made.started.executionStarted.workflowInstance.instanceId == "again"
    assert made.history[-1].taskScheduled.rerunParentInstanceInfo.instanceID == "old"
    assert HISTORY[1].executionStarted.workflowInstance.instanceId == ""


def test_a_given_input_replaces_the_recorded_one_and_none_clears_it() -> None:
    replaced = plan(2, overwriteInput=True, input=StringValue(value="9"))
    assert replaced.tasks[-1].event.taskScheduled.input.value == "9"
    assert not plan(2, overwriteInput=True).tasks[-1].event.taskScheduled.HasField("input")
    assert plan(2).tasks[-1].event.taskScheduled.input.value == "1"


def test_a_rerun_child_gets_the_id_that_was_asked_for() -> None:
    assert [child.instance_id for child in plan(4, newChildWorkflowInstanceID="mine").children] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"event_id": 5, "is_final": False}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"event_id": 5, "is_child": True}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"event_id": 5, "new_id": "old"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"event_id": 3, "overwriteInput": True}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"event_id": 5, "newChildWorkflowInstanceID": "x"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"event_id": 99}, grpc.StatusCode.NOT_FOUND),
    ],
)
def test_a_rerun_that_makes_no_sense_is_refused(arguments: dict[str, Any], code: grpc.StatusCode) -> None:
    with pytest.raises(RerunRefused) as refusal:
        plan(**arguments)
    assert refusal.value.code is code
