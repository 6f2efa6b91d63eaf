"""The workflows and activities of the contract suite, written with nothing but the public SDK."""

import json
import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import dapr.ext.workflow as wf

RETRIES = wf.RetryPolicy(
    first_retry_interval=timedelta(milliseconds=500), max_number_of_attempts=3, backoff_coefficient=2.0
)


class World:
    """What the activities have done."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, key: str) -> int:
        with self._lock:
            self.runs[key] += 1
            return self.runs[key]


def register(runtime: wf.WorkflowRuntime, world: World) -> None:
    """Give a worker everything the suite starts by name."""
    _register_activities(runtime, world)
    _register_chains(runtime)
    _register_failures(runtime)
    _register_waits(runtime)
    _register_generations(runtime)
    _register_families(runtime)


def _register_activities(runtime: wf.WorkflowRuntime, world: World) -> None:
    @runtime.activity(name="increase")
    async def increase(ctx: wf.WorkflowActivityContext, number: int) -> int:
        world.count(f"{ctx.workflow_id}/increase")
        return number + 1

    @runtime.activity(name="double")
    async def double(ctx: wf.WorkflowActivityContext, number: int) -> int:
        return number * 2

    @runtime.activity(name="succeed_at_third_try")
    async def succeed_at_third_try(ctx: wf.WorkflowActivityContext, _: Any) -> int:
        tries = world.count(f"{ctx.workflow_id}/flaky")
        if tries < 3:
            raise ConnectionError(f"try {tries}")
        return tries

    @runtime.activity(name="fail_for_good")
    async def fail_for_good(ctx: wf.WorkflowActivityContext, kind: str) -> None:
        world.count(f"{ctx.workflow_id}/hopeless")
        raise type(kind, (Exception,), {})("no use")

    @runtime.activity(name="undo")
    async def undo(ctx: wf.WorkflowActivityContext, what: str) -> str:
        world.count(f"{ctx.workflow_id}/undo")
        return f"undid {what}"

    @runtime.activity(name="make_text")
    async def make_text(ctx: wf.WorkflowActivityContext, size: int) -> str:
        return "x" * size

    @runtime.activity(name="name_execution")
    async def name_execution(ctx: wf.WorkflowActivityContext, fail_first: bool) -> str:
        if fail_first and world.count(f"{ctx.workflow_id}/named") == 1:
            raise ConnectionError("once")
        return ctx.get_inner_context().task_execution_id


def _register_chains(runtime: wf.WorkflowRuntime) -> None:
    @runtime.workflow(name="chain")
    def chain(ctx: wf.DaprWorkflowContext, number: int):
        for step in range(3):
            ctx.set_custom_status(json.dumps({"step": step}))
            number = yield ctx.call_activity("increase", input=number)
        return number

    @runtime.workflow(name="long_chain")
    def long_chain(ctx: wf.DaprWorkflowContext, length: int):
        number = 0
        for _ in range(length):
            number = yield ctx.call_activity("increase", input=number)
        return number

    @runtime.workflow(name="fan_out")
    def fan_out(ctx: wf.DaprWorkflowContext, width: int):
        results = yield wf.when_all([ctx.call_activity("double", input=number) for number in range(width)])
        return sum(results)


def _register_failures(runtime: wf.WorkflowRuntime) -> None:
    @runtime.workflow(name="retried")
    def retried(ctx: wf.DaprWorkflowContext, _: Any):
        return (yield ctx.call_activity("succeed_at_third_try", retry_policy=RETRIES))

    @runtime.workflow(name="hopeless")
    def hopeless(ctx: wf.DaprWorkflowContext, kind: str):
        yield ctx.call_activity("fail_for_good", input=kind, retry_policy=RETRIES)

    @runtime.workflow(name="sized_text")
    def sized_text(ctx: wf.DaprWorkflowContext, size: int):
        return len((yield ctx.call_activity("make_text", input=size)))

    @runtime.workflow(name="named_executions")
    def named_executions(ctx: wf.DaprWorkflowContext, _: Any):
        quick = wf.RetryPolicy(first_retry_interval=timedelta(0), max_number_of_attempts=2)
        first = yield ctx.call_activity("name_execution", input=True, retry_policy=quick)
        second = yield ctx.call_activity("name_execution", input=False)
        return [first, second]

    @runtime.workflow(name="raises")
    def raises(ctx: wf.DaprWorkflowContext, _: Any):
        yield ctx.create_timer(timedelta(0))
        raise KeyError("bad input")


def _register_waits(runtime: wf.WorkflowRuntime) -> None:
    @runtime.workflow(name="sleeps")
    def sleeps(ctx: wf.DaprWorkflowContext, seconds: float):
        before = ctx.current_utc_datetime
        yield ctx.create_timer(timedelta(seconds=seconds))
        return (ctx.current_utc_datetime - before).total_seconds()

    @runtime.workflow(name="event_or_timer")
    def event_or_timer(ctx: wf.DaprWorkflowContext, _: Any):
        event, timer = ctx.wait_for_external_event("answer"), ctx.create_timer(timedelta(seconds=30))
        winner = yield wf.when_any([event, timer])
        return event.get_result() if winner is event else "too late"

    @runtime.workflow(name="event_in_time")
    def event_in_time(ctx: wf.DaprWorkflowContext, _: Any):
        try:
            return (yield ctx.wait_for_external_event("answer", timeout=timedelta(seconds=1)))
        except TimeoutError:
            return "gave up"

    @runtime.workflow(name="late_listener")
    def late_listener(ctx: wf.DaprWorkflowContext, _: Any):
        yield ctx.create_timer(timedelta(milliseconds=300))
        return (yield ctx.wait_for_external_event("answer"))

    @runtime.workflow(name="waits")
    def waits(ctx: wf.DaprWorkflowContext, _: Any):
        return (yield ctx.wait_for_external_event("answer"))


def _register_generations(runtime: wf.WorkflowRuntime) -> None:
    @runtime.workflow(name="again")
    def again(ctx: wf.DaprWorkflowContext, state: dict[str, int]):
        yield ctx.create_timer(timedelta(milliseconds=50))
        if state["round"] >= 5:
            return state
        ctx.continue_as_new({"round": state["round"] + 1}, save_events=True)
        return None

    @runtime.workflow(name="collects")
    def collects(ctx: wf.DaprWorkflowContext, state: dict[str, Any]):
        state["seen"].append((yield ctx.wait_for_external_event("answer")))
        if len(state["seen"]) == state["wanted"]:
            return state["seen"]
        ctx.continue_as_new(state, save_events=True)
        return None


def _register_families(runtime: wf.WorkflowRuntime) -> None:
    @runtime.workflow(name="parent_of_three")
    def parent_of_three(ctx: wf.DaprWorkflowContext, _: Any):
        children = [
            ctx.call_child_workflow("chain", input=number, instance_id=f"{ctx.instance_id}-child-{number}")
            for number in range(3)
        ]
        return (yield wf.when_all(children))

    @runtime.workflow(name="saga")
    def saga(ctx: wf.DaprWorkflowContext, _: Any):
        try:
            yield ctx.call_child_workflow("hopeless", input="NonRetryableError")
        except wf.TaskFailedError as error:
            undone = yield ctx.call_activity("undo", input="the child")
            return {"undone": undone, "type": error.details.error_type}
        return None

    @runtime.workflow(name="parent_of_waiting")
    def parent_of_waiting(ctx: wf.DaprWorkflowContext, _: Any):
        yield ctx.call_child_workflow("waits", instance_id=f"{ctx.instance_id}-child")

    @runtime.workflow(name="parent_of_duplicate")
    def parent_of_duplicate(ctx: wf.DaprWorkflowContext, taken: str):
        try:
            yield ctx.call_child_workflow("waits", instance_id=taken)
        except wf.TaskFailedError as error:
            return error.details.message
        return None
