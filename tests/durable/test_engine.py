"""The turn engine: what a turn shows to a worker, and what its answer writes. Pure."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from budcluster.durable.sidecar import engine, events
from budcluster.durable.sidecar.conclusion import Outcome
from budcluster.durable.sidecar.instances import Instance, Parent, Past, Turn, Waiting
from budcluster.durable.sidecar.limits import Limits, PayloadTooLarge
from budcluster.durable.sidecar.protos import (
    COMPLETED,
    CONTINUED_AS_NEW,
    FAILED,
    NEVER_FIRES,
    RUNNING,
    STALLED,
    SUSPENDED,
    TERMINATED,
    StringValue,
    Timestamp,
    pb,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PARENT = Parent("parent", "parent-run", 7)


def instance(**facts: Any) -> Instance:
    return Instance("i", "run-1", "order", **facts)


def started(name: str = "order") -> pb.HistoryEvent:
    return events.event(NOW, executionStarted=pb.ExecutionStartedEvent(name=name))


def task_done(task_id: int, result: str = "1") -> pb.HistoryEvent:
    return events.task_completed(NOW, task_id, pb.ActivityResponse(result=StringValue(value=result)))


def raised(name: str) -> pb.HistoryEvent:
    return events.event(NOW, eventRaised=pb.EventRaisedEvent(name=name))


def terminated(*, recurse: bool = False) -> pb.HistoryEvent:
    return events.event(
        NOW, executionTerminated=pb.ExecutionTerminatedEvent(input=StringValue(value='"out"'), recurse=recurse)
    )


def inbox(*given: pb.HistoryEvent | tuple[str | None, pb.HistoryEvent]) -> list[Waiting]:
    pairs = [item if isinstance(item, tuple) else ("run-1", item) for item in given]
    return [Waiting(number, execution, event) for number, (execution, event) in enumerate(pairs, 1)]


def kinds(history: list[pb.HistoryEvent]) -> list[str | None]:
    return [event.WhichOneof("eventType") for event in history]


def begin(*given: Any, past: tuple[pb.HistoryEvent, ...] = (), of: Instance | None = None) -> Turn:
    return engine.begin(of or instance(), Past(past), inbox(*given), NOW)


def conclude(turn: Turn, *actions: pb.WorkflowAction, **facts: Any) -> Outcome:
    numbers = count(2)
    limits = facts.pop("limits", Limits())
    response = pb.WorkflowResponse(actions=actions, **facts)
    return engine.conclude(turn, response, now=NOW, limits=limits, new_id=lambda: f"run-{next(numbers)}")


def schedule(task_id: int, payload: str = "1") -> pb.WorkflowAction:
    wanted = pb.ScheduleTaskAction(name="pay", input=StringValue(value=payload), taskExecutionId=f"key-{task_id}")
    return pb.WorkflowAction(id=task_id, scheduleTask=wanted)


def complete(status: int = COMPLETED, result: str | None = '"done"', **facts: Any) -> pb.WorkflowAction:
    done = pb.CompleteWorkflowAction(workflowStatus=status, **facts)
    if result is not None:
        done.result.value = result
    return pb.WorkflowAction(id=9, completeWorkflow=done)


def child(task_id: int, child_id: str = "") -> pb.WorkflowAction:
    return pb.WorkflowAction(
        id=task_id, createChildWorkflow=pb.CreateChildWorkflowAction(name="ship", instanceId=child_id)
    )


class TestWhatATurnShows:
    def test_the_start_comes_before_events_that_were_raised_earlier(self) -> None:
        turn = begin((None, raised("early")), started())
        assert kinds(turn.new_events) == ["workflowStarted", "executionStarted", "eventRaised"]

    def test_carried_events_come_before_those_raised_during_the_turn_that_carried_them(self) -> None:
        turn = begin((None, raised("later")), started(), raised("carried"))
        assert [event.eventRaised.name for event in turn.new_events[2:]] == ["carried", "later"]

    def test_messages_of_an_earlier_generation_are_dropped_and_consumed(self) -> None:
        turn = begin(("run-0", task_done(1)), started())
        assert kinds(turn.new_events) == ["workflowStarted", "executionStarted"]
        assert turn.consumed == [1, 2]

    @pytest.mark.parametrize("in_past", [True, False])
    def test_what_settles_a_task_again_is_dropped(self, in_past: bool) -> None:
        again = events.task_failed(NOW, 1, events.failure("E", "late"))
        turn = begin(again, past=(task_done(1),)) if in_past else begin(task_done(1), again)
        assert kinds(turn.new_events) == (["workflowStarted"] if in_past else ["workflowStarted", "taskCompleted"])

    def test_a_timer_and_a_task_of_the_same_number_are_different_things(self) -> None:
        fired = events.event(NOW, timerFired=pb.TimerFiredEvent(timerId=1))
        assert kinds(begin(task_done(1), fired).new_events) == ["workflowStarted", "taskCompleted", "timerFired"]

    def test_a_second_start_is_dropped(self) -> None:
        assert kinds(begin(started(), past=(started(),)).new_events) == ["workflowStarted"]

    def test_a_cold_worker_gets_the_whole_past_and_a_warm_one_the_rest(self) -> None:
        turn = begin(task_done(1), past=(started(), schedule_event(1)))
        assert len(turn.request().pastEvents) == 2
        warm = turn.request(warm=1)
        assert warm.cachedHistory.eventCount == 1
        assert kinds(list(warm.pastEvents)) == ["taskScheduled"]

    def test_a_worker_that_claims_to_know_more_than_there_is_gets_everything(self) -> None:
        request = begin(task_done(1), past=(started(),)).request(warm=5)
        assert not request.HasField("cachedHistory")
        assert len(request.pastEvents) == 1


def schedule_event(task_id: int) -> pb.HistoryEvent:
    return events.event(NOW, task_id, taskScheduled=pb.TaskScheduledEvent(name="pay"))


class TestWhatAnAnswerWrites:
    def test_a_scheduled_activity_is_an_event_and_a_task_with_its_key(self) -> None:
        outcome = conclude(begin(started()), schedule(1))
        assert outcome.status == RUNNING
        assert kinds(outcome.history) == ["workflowStarted", "executionStarted", "taskScheduled"]
        [task] = outcome.tasks
        assert task.event.eventId == 1
        assert task.event.taskScheduled.taskExecutionId == "key-1"

    def test_a_timer_becomes_a_message_for_its_time_and_keeps_its_origin(self) -> None:
        due = NOW + timedelta(hours=1)
        wanted = pb.CreateTimerAction(fireAt=events.timestamp(due), externalEvent=pb.TimerOriginExternalEvent(name="e"))
        outcome = conclude(begin(started()), pb.WorkflowAction(id=1, createTimer=wanted))
        [message] = outcome.messages
        assert message.visible_at == due
        assert message.event.timerFired.timerId == 1
        assert outcome.history[-1].timerCreated.externalEvent.name == "e"

    def test_a_wait_without_a_limit_is_noted_but_never_fires(self) -> None:
        wanted = pb.CreateTimerAction(fireAt=NEVER_FIRES)
        outcome = conclude(begin(started()), pb.WorkflowAction(id=1, createTimer=wanted))
        assert kinds(outcome.history)[-1] == "timerCreated"
        assert outcome.messages == []

    def test_a_child_without_an_id_gets_one_from_its_place(self) -> None:
        [made] = conclude(begin(started()), child(26)).children
        assert made.instance_id == "i:001a"
        assert made.parent == Parent("i", "run-1", 26)
        assert made.started.executionStarted.parentInstance.workflowInstance.instanceId == "i"

    def test_versions_and_patches_are_noted_where_the_turn_begins(self) -> None:
        outcome = conclude(begin(started()), version=pb.WorkflowVersion(name="v2", patches=["faster"]))
        assert outcome.history[0].workflowStarted.version.name == "v2"
        assert list(outcome.history[0].workflowStarted.version.patches) == ["faster"]

    def test_completion_clears_what_the_same_answer_scheduled(self) -> None:
        outcome = conclude(begin(started()), schedule(1), complete())
        assert (outcome.status, outcome.output, outcome.tasks) == (COMPLETED, '"done"', [])
        assert kinds(outcome.history)[-1] == "executionCompleted"

    def test_the_parent_hears_of_success_and_of_failure(self) -> None:
        turn = begin(started(), of=instance(parent=PARENT))
        [report] = conclude(turn, complete()).messages
        assert (report.instance_id, report.execution_id) == ("parent", "parent-run")
        assert report.event.childWorkflowInstanceCompleted.taskScheduledId == 7
        failed = complete(FAILED, None, failureDetails=events.failure("KeyError", "gone"))
        [report] = conclude(turn, failed).messages
        assert report.event.childWorkflowInstanceFailed.failureDetails.errorType == "KeyError"

    def test_a_terminated_child_reaches_its_parent_as_a_failure(self) -> None:
        turn = begin(terminated(), of=instance(parent=PARENT))
        [report] = conclude(turn, complete(TERMINATED)).messages
        assert report.event.childWorkflowInstanceFailed.failureDetails.errorType == "WorkflowTerminated"

    def test_a_very_long_failure_is_cut(self) -> None:
        failed = complete(FAILED, None, failureDetails=events.failure("E", "x" * 100_000))
        outcome = conclude(begin(started()), failed)
        assert outcome.failure is not None
        assert len(outcome.failure.errorMessage) == 16_000


class TestContinueAsNew:
    def test_the_next_generation_starts_with_the_new_input_and_what_it_carries(self) -> None:
        again = complete(CONTINUED_AS_NEW, '{"round": 2}', carryoverEvents=[raised("kept")])
        outcome = conclude(begin(task_done(1), past=(started(),)), again)
        assert outcome.next_generation is not None
        assert outcome.next_generation.execution_id == "run-2"
        assert outcome.next_generation.started.executionStarted.name == "order"
        assert outcome.next_generation.started.executionStarted.input.value == '{"round": 2}'
        assert [event.eventRaised.name for event in outcome.carried] == ["kept"]

    def test_termination_in_the_same_turn_wins(self) -> None:
        outcome = conclude(begin(terminated(), past=(started(),)), complete(CONTINUED_AS_NEW))
        assert (outcome.status, outcome.output, outcome.next_generation) == (TERMINATED, '"out"', None)


class TestTermination:
    def test_it_is_forced_when_the_worker_does_not_end_the_workflow(self) -> None:
        outcome = conclude(begin(terminated(), past=(started(),)), schedule(1))
        assert (outcome.status, outcome.output, outcome.tasks) == (TERMINATED, '"out"', [])

    def test_it_is_forced_on_a_workflow_whose_version_no_worker_has(self) -> None:
        missing = pb.WorkflowAction(id=1, workflowVersionNotAvailable=pb.WorkflowVersionNotAvailableAction())
        assert conclude(begin(terminated(), past=(started(),)), missing).status == TERMINATED

    @pytest.mark.parametrize("recurse", [True, False])
    def test_it_reaches_children_only_when_it_is_recursive(self, recurse: bool) -> None:
        outcome = conclude(begin(terminated(recurse=recurse), past=(started(),)), complete(TERMINATED))
        assert (outcome.ends_children is not None) is recurse


class TestStatus:
    def test_the_last_of_pause_and_resume_counts(self) -> None:
        pause = events.event(NOW, executionSuspended=pb.ExecutionSuspendedEvent())
        resume = events.event(NOW, executionResumed=pb.ExecutionResumedEvent())
        assert conclude(begin(pause, past=(started(),))).status == SUSPENDED
        assert conclude(begin(pause, resume, past=(started(),))).status == RUNNING
        assert conclude(begin(resume, past=(started(),), of=instance(suspended=True))).suspended is False

    def test_a_suspended_workflow_stays_suspended_when_something_else_happens(self) -> None:
        assert conclude(begin(task_done(1), past=(started(),), of=instance(suspended=True))).status == SUSPENDED

    def test_a_missing_version_stalls_and_writes_nothing(self) -> None:
        missing = pb.WorkflowAction(id=1, workflowVersionNotAvailable=pb.WorkflowVersionNotAvailableAction())
        outcome = conclude(begin(task_done(1), past=(started(),)), missing)
        assert (outcome.status, outcome.history, outcome.consumed) == (STALLED, [], [])

    def test_the_custom_status_stays_when_the_answer_has_none(self) -> None:
        assert conclude(begin(started(), of=instance(custom_status="old"))).custom_status == "old"
        assert conclude(begin(started()), customStatus=StringValue(value="new")).custom_status == "new"


class TestLimits:
    def test_a_payload_over_the_limit_is_refused_with_its_size(self) -> None:
        limits = Limits(payload_bytes=1024)
        with pytest.raises(PayloadTooLarge, match="The input of activity 'pay' has 2000 bytes and at most 1024"):
            conclude(begin(started()), schedule(1, "x" * 2000), limits=limits)
        with pytest.raises(PayloadTooLarge, match="The output of the workflow"):
            conclude(begin(started()), complete(result="x" * 2000), limits=limits)
        with pytest.raises(PayloadTooLarge, match="custom status"):
            conclude(begin(started()), customStatus=StringValue(value="x" * 2000), limits=limits)

    def test_bytes_count_not_characters(self) -> None:
        Limits(payload_bytes=1024).check("it", "x" * 1024)
        with pytest.raises(PayloadTooLarge, match="1200 bytes"):
            Limits(payload_bytes=1024).check("it", "é" * 600)

    def test_a_history_over_the_limit_fails_the_instance_and_says_what_to_do(self) -> None:
        past = (started(), *(task_done(number, "x" * 500) for number in range(10)))
        outcome = conclude(begin(raised("more"), past=past), schedule(20), limits=Limits(history_bytes=4096))
        assert outcome.status == FAILED
        assert outcome.failure is not None
        assert outcome.failure.errorType == "HistoryTooLarge"
        assert "continue as new" in outcome.failure.errorMessage

    def test_a_workflow_that_ends_in_the_turn_that_goes_over_the_limit_may_end(self) -> None:
        past = (started(), *(task_done(number, "x" * 500) for number in range(10)))
        outcome = conclude(begin(raised("more"), past=past), complete(), limits=Limits(history_bytes=4096))
        assert outcome.status == COMPLETED


def test_a_moment_survives_the_protocol() -> None:
    moment = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    assert events.moment_of(events.timestamp(moment)) == moment
    assert isinstance(events.timestamp(moment), Timestamp)
