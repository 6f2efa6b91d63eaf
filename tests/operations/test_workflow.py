"""The way of every long piece of work, driven step by step without an engine."""

from typing import Any
from uuid import UUID

from budcluster.durable.context import Context, Steps
from budcluster.durable.refs import ActivityRef
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.workflow import Step, run_steps
from tests.driver import ScriptedFailure, assert_replays, drive

PAYLOAD = OperationPayload(operation_id=UUID(int=1), subject_id=UUID(int=2))
GO, STOP = {"goes_on": True}, {"goes_on": False}


def _ref(name: str) -> ActivityRef[OperationPayload, None]:
    return ActivityRef(name, takes=OperationPayload)


STEPS = (
    Step("make_network", "Make the network", act=_ref("make_network"), undo=_ref("drop_network")),
    Step("make_cluster", "Make the cluster", act=_ref("make_cluster"), undo=_ref("drop_cluster")),
    Step("store", "Keep the credential", act=_ref("store"), keeps=True),
    Step("detect", "Look at the hardware", act=_ref("detect")),
)


def provision(ctx: Context, payload: OperationPayload) -> Steps[bool]:
    return (yield from run_steps(ctx, payload, STEPS))


def _calls(replies: list[Any]) -> tuple[Any, list[str], dict[str, Any]]:
    """Result, names of the activities called, and the payload of the last one."""
    result, context = drive(provision, PAYLOAD, replies)
    return result, [name for name, _ in context.calls], context.calls[-1][1]


async def test_all_steps_run_in_order_and_the_end_is_marked() -> None:
    result, names, _ = _calls([GO, None, None, None, None, None])
    assert result is True
    assert names == [
        "mark_operation_started", "make_network", "make_cluster", "store", "detect", "mark_operation_succeeded",
    ]  # fmt: skip


async def test_nothing_runs_when_the_attempt_was_replaced() -> None:
    result, names, _ = _calls([STOP])
    assert (result, names) == (False, ["mark_operation_started"])


async def test_a_failed_step_and_those_before_it_are_undone_in_reverse() -> None:
    failure = ScriptedFailure("NonRetryableError", "no quota")
    result, names, ending = _calls([GO, None, failure, None, None, None])
    assert result is False
    assert names[3:] == ["drop_cluster", "drop_network", "mark_operation_failed"]
    assert (ending["step"], ending["detail"], ending["undone"], ending["left"]) == (
        "make_cluster", "no quota", ["make_cluster", "make_network"], [],
    )  # fmt: skip


async def test_what_exists_for_others_is_kept_when_a_later_step_fails() -> None:
    _, names, ending = _calls([GO, None, None, None, ScriptedFailure(), None])
    assert names[-1] == "mark_operation_failed"
    assert (ending["step"], ending["undone"]) == ("detect", [])


async def test_the_end_says_what_could_not_be_undone() -> None:
    _, names, ending = _calls([GO, None, ScriptedFailure(), ScriptedFailure(), None, None])
    assert names[3:] == ["drop_cluster", "drop_network", "mark_operation_failed"]
    assert (ending["undone"], ending["left"]) == (["make_network"], ["make_cluster"])


async def test_every_replay_takes_the_same_way() -> None:
    assert_replays(provision, PAYLOAD, [GO, None, None, None, None, None])
    assert_replays(provision, PAYLOAD, [GO, None, ScriptedFailure(), ScriptedFailure(), None, None])
