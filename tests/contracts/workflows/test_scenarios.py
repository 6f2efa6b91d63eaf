"""What any workflow backend must do, through the public SDK alone: one suite for the embedded and a live sidecar."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dapr.ext.workflow as wf
import grpc
import pytest

from tests.contracts.workflows.scenarios import World, register
from tests.fixtures.workflows import Backend
from tests.waiting import eventually

STATUS = wf.WorkflowStatus


@dataclass
class Suite:
    """A worker with all scenarios, a client, and short words for what tests do with them."""

    backend: Backend
    client: wf.DaprWorkflowClient
    world: World

    def start(self, workflow: str, payload: Any = None, *, instance_id: str | None = None, **options: Any) -> str:
        return self.client.schedule_new_workflow(
            workflow, input=payload, instance_id=instance_id or self.backend.new_id(workflow), **options
        )

    def ended(self, instance_id: str, *, within_s: int = 60) -> wf.WorkflowState:
        state = self.client.wait_for_workflow_completion(instance_id, timeout_in_seconds=within_s)
        assert state is not None
        return state

    def run(self, workflow: str, payload: Any = None) -> wf.WorkflowState:
        return self.ended(self.start(workflow, payload))

    def running(self, workflow: str, payload: Any = None, *, instance_id: str | None = None) -> str:
        started = self.start(workflow, payload, instance_id=instance_id)
        self.client.wait_for_workflow_start(started, timeout_in_seconds=10)
        return started

    def status(self, instance_id: str) -> wf.WorkflowStatus | None:
        state = self.client.get_workflow_state(instance_id)
        return None if state is None else state.runtime_status

    def history(self, instance_id: str) -> list[wf.WorkflowHistoryEvent]:
        return self.client.get_workflow_history(instance_id)


@pytest.fixture(scope="module")
def suite(backend: Backend) -> Iterator[Suite]:
    world = World()
    with backend.worker(lambda runtime: register(runtime, world)), backend.client() as client:
        yield Suite(backend, client, world)


def output(state: wf.WorkflowState) -> Any:
    assert state.runtime_status == STATUS.COMPLETED, state
    return json.loads(state.serialized_output)


# -- steps --------------------------------------------------------------------------------------------------------


def test_s1_a_chain_of_activities_completes_and_shows_its_last_custom_status(suite: Suite) -> None:
    state = suite.run("chain", 1)
    assert output(state) == 4
    assert json.loads(state.serialized_custom_status) == {"step": 2}


def test_s2_twenty_activities_fan_out_and_their_results_come_together(suite: Suite) -> None:
    assert output(suite.run("fan_out", 20)) == sum(2 * number for number in range(20))


def test_s3_an_activity_that_succeeds_at_the_third_try_is_retried_with_growing_pauses(suite: Suite) -> None:
    began = time.monotonic()
    assert output(suite.run("retried")) == 3
    assert time.monotonic() - began >= 1.5


def test_s4_a_timer_moves_the_workflow_s_clock(suite: Suite) -> None:
    assert 1.0 <= output(suite.run("sleeps", 1.0)) < 20.0


def test_s5_an_event_wins_against_a_timer(suite: Suite) -> None:
    instance_id = suite.running("event_or_timer")
    suite.client.raise_workflow_event(instance_id, "answer", data={"value": 42})
    assert output(suite.ended(instance_id)) == {"value": 42}


def test_s6_waiting_for_an_event_ends_with_a_timeout_inside_the_workflow(suite: Suite) -> None:
    assert output(suite.run("event_in_time")) == "gave up"


def test_s7_an_event_raised_before_the_workflow_waits_is_kept_for_it(suite: Suite) -> None:
    instance_id = suite.start("late_listener")
    suite.client.raise_workflow_event(instance_id, "answer", data="early")
    assert output(suite.ended(instance_id)) == "early"


# -- families -----------------------------------------------------------------------------------------------------


def test_s8_three_children_with_given_ids_all_answer(suite: Suite) -> None:
    assert output(suite.run("parent_of_three")) == [3, 4, 5]


def test_s9_a_failed_child_is_compensated(suite: Suite) -> None:
    assert output(suite.run("saga")) == {"undone": "undid the child", "type": "TaskFailedError"}


def test_s10_a_workflow_that_raises_fails_with_the_error_s_type_and_text(suite: Suite) -> None:
    state = suite.run("raises")
    assert state.runtime_status == STATUS.FAILED
    assert state.failure_details.error_type == "KeyError"
    assert state.failure_details.message == "'bad input'"


def test_s11_an_unknown_workflow_fails_and_says_so(suite: Suite) -> None:
    state = suite.run("never_registered")
    assert state.runtime_status == STATUS.FAILED
    assert state.failure_details.error_type == "OrchestratorNotRegisteredError"


def test_s12_termination_reaches_parent_and_waiting_child_and_keeps_the_output(suite: Suite) -> None:
    instance_id = suite.running("parent_of_waiting")
    eventually(lambda: suite.status(f"{instance_id}-child") == STATUS.RUNNING)
    suite.client.terminate_workflow(instance_id, output={"by": "test"}, recursive=True)
    state = suite.ended(instance_id)
    assert state.runtime_status == STATUS.TERMINATED
    assert json.loads(state.serialized_output) == {"by": "test"}
    assert suite.ended(f"{instance_id}-child").runtime_status == STATUS.TERMINATED


# -- lifecycle ----------------------------------------------------------------------------------------------------


def test_s13_a_paused_workflow_keeps_an_event_until_it_is_resumed(suite: Suite) -> None:
    instance_id = suite.running("waits")
    suite.client.pause_workflow(instance_id)
    eventually(lambda: suite.status(instance_id) == STATUS.SUSPENDED)
    suite.client.raise_workflow_event(instance_id, "answer", data="kept")
    eventually(lambda: any(event.name == "answer" for event in suite.history(instance_id)))
    assert suite.status(instance_id) == STATUS.SUSPENDED
    suite.client.resume_workflow(instance_id)
    assert output(suite.ended(instance_id)) == "kept"


def test_s14_continue_as_new_carries_the_state_on(suite: Suite) -> None:
    assert output(suite.run("again", {"round": 0})) == {"round": 5}


def test_s15_a_scheduled_workflow_does_not_start_before_its_time(suite: Suite) -> None:
    start_at = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=3)
    instance_id = suite.start("sleeps", 0.0, start_at=start_at)
    assert suite.status(instance_id) == STATUS.PENDING
    output(suite.ended(instance_id))
    assert datetime.now(UTC).replace(tzinfo=None) >= start_at
    assert suite.history(instance_id)[0].timestamp >= start_at


def test_s16_the_id_of_a_running_workflow_cannot_be_used_again(suite: Suite) -> None:
    instance_id = suite.running("waits")
    with pytest.raises(grpc.RpcError) as refusal:
        suite.start("waits", instance_id=instance_id)
    assert refusal.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert f"an active workflow with ID '{instance_id}' already exists" in refusal.value.details()
    suite.client.terminate_workflow(instance_id)


def test_s17_the_id_of_a_finished_workflow_runs_anew(suite: Suite) -> None:
    instance_id = suite.start("chain", 1)
    assert output(suite.ended(instance_id)) == 4
    suite.start("chain", 10, instance_id=instance_id)
    eventually(lambda: (state := suite.ended(instance_id)) and json.loads(state.serialized_output) == 13)
    assert len(suite.history(instance_id)) == 12


def test_s18_a_purged_workflow_is_gone(suite: Suite) -> None:
    instance_id = suite.start("chain", 1)
    suite.ended(instance_id)
    suite.client.purge_workflow(instance_id)
    assert suite.client.get_workflow_state(instance_id) is None


def test_s19_a_running_workflow_cannot_be_purged(suite: Suite) -> None:
    instance_id = suite.running("waits")
    with pytest.raises(grpc.RpcError) as refusal:
        suite.client.purge_workflow(instance_id)
    assert refusal.value.code() == grpc.StatusCode.UNKNOWN
    assert "orchestration has not yet completed" in refusal.value.details()
    suite.client.raise_workflow_event(instance_id, "answer", data="unharmed")
    assert output(suite.ended(instance_id)) == "unharmed"


def test_s20_an_unknown_workflow_has_no_state(suite: Suite) -> None:
    assert suite.client.get_workflow_state(suite.backend.new_id("unknown")) is None


def test_s21_an_event_for_an_unknown_workflow_is_refused(suite: Suite) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        suite.client.raise_workflow_event(suite.backend.new_id("unknown"), "answer", data=1)
    assert refusal.value.code() == grpc.StatusCode.UNKNOWN
    assert "no such instance exists" in refusal.value.details()


# -- reading ------------------------------------------------------------------------------------------------------


def test_s22_instance_ids_come_in_pages(suite: Suite) -> None:
    made = {suite.start("chain", number) for number in range(8)}
    for instance_id in made:
        suite.ended(instance_id)
    first = suite.client.list_workflow_instance_ids(page_size=3)
    assert len(first.instance_ids) == 3
    assert first.continuation_token
    second = suite.client.list_workflow_instance_ids(page_size=4, continuation_token=first.continuation_token)
    assert len(second.instance_ids) == 4
    assert not set(first.instance_ids) & set(second.instance_ids)
    assert made <= set(suite.client.iter_workflow_instance_ids(page_size=4))


def test_s23_the_history_of_a_chain_is_event_for_event_the_expected_one(suite: Suite) -> None:
    instance_id = suite.start("chain", 1)
    suite.ended(instance_id)
    assert [event.event_type.name for event in suite.history(instance_id)] == [
        "WORKFLOW_STARTED",
        "EXECUTION_STARTED",
        "TASK_SCHEDULED",
        "WORKFLOW_STARTED",
        "TASK_COMPLETED",
        "TASK_SCHEDULED",
        "WORKFLOW_STARTED",
        "TASK_COMPLETED",
        "TASK_SCHEDULED",
        "WORKFLOW_STARTED",
        "TASK_COMPLETED",
        "EXECUTION_COMPLETED",
    ]


def test_s24_a_finished_chain_runs_again_from_its_second_activity_with_a_new_input(suite: Suite) -> None:
    instance_id = suite.start("chain", 1)
    suite.ended(instance_id)
    second = [event for event in suite.history(instance_id) if event.is_rerunnable][1]
    again = suite.client.rerun_workflow_from_event(
        instance_id, second.event_id, new_instance_id=suite.backend.new_id("rerun"), input=100
    )
    assert output(suite.ended(again)) == 102
    assert suite.world.runs[f"{again}/increase"] == 2


# -- size ---------------------------------------------------------------------------------------------------------


def test_s26_a_result_over_the_limit_fails_its_activity_at_once_and_nothing_else(suite: Suite) -> None:
    other = suite.running("waits")
    began = time.monotonic()
    state = suite.run("sized_text", 6_000_000)
    assert time.monotonic() - began < 15
    assert state.runtime_status == STATUS.FAILED
    assert "Activity result exceeds gRPC max message size" in state.failure_details.message
    suite.client.raise_workflow_event(other, "answer", data="went on")
    assert output(suite.ended(other)) == "went on"
    assert output(suite.run("chain", 1)) == 4


def test_s27_a_chain_of_two_hundred_activities_completes(suite: Suite) -> None:
    assert output(suite.run("long_chain", 200)) == 200


# -- beyond the list ----------------------------------------------------------------------------------------------


def test_an_error_named_nonretryableerror_is_not_retried(suite: Suite) -> None:
    instance_id = suite.start("hopeless", "NonRetryableError")
    assert suite.ended(instance_id).runtime_status == STATUS.FAILED
    assert suite.world.runs[f"{instance_id}/hopeless"] == 1


def test_the_task_execution_id_is_the_same_for_all_tries_of_one_call_and_differs_for_the_next(suite: Suite) -> None:
    first, second = output(suite.run("named_executions"))
    assert first
    assert second
    assert first != second


def test_no_event_is_lost_or_doubled_when_a_workflow_continues_as_new_for_each(suite: Suite) -> None:
    instance_id = suite.running("collects", {"seen": [], "wanted": 30})
    for number in range(30):
        suite.client.raise_workflow_event(instance_id, "answer", data={"number": number})
    seen = [event["number"] for event in output(suite.ended(instance_id))]
    assert sorted(seen) == list(range(30))


def test_a_child_with_the_id_of_an_active_workflow_fails_instead_of_hanging_its_parent(suite: Suite) -> None:
    if not suite.backend.is_embedded:
        pytest.skip("daprd before 1.18.2 hangs the parent here")
    taken = suite.running("waits")
    message = output(suite.run("parent_of_duplicate", taken))
    assert f"an active workflow with ID '{taken}' already exists" in message
