"""The worker, the bridge to the application's loop, and the starter, on the embedded sidecar."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel

from budcluster.durable.backend import (
    Address,
    BackendKind,
    DaprBackend,
    EmbeddedBackend,
    choose_backend,
)
from budcluster.durable.context import Context, Steps
from budcluster.durable.errors import InstanceStillRunning, NonRetryableError, WorkflowsUnavailable
from budcluster.durable.execution import Execution
from budcluster.durable.refs import NEVER, ActivityRef, WorkflowRef
from budcluster.durable.runtime import WorkflowHost
from budcluster.durable.starter import WorkflowStarter
from tests.fixtures.workflows import close_leftovers
from tests.waiting import until, until_true


class Number(BaseModel):
    value: int


INCREASE = ActivityRef("increase", takes=Number, gives=Number, retry=NEVER)
HANG = ActivityRef("hang", takes=Number, retry=NEVER)
REFUSE = ActivityRef("refuse", takes=Number)
COUNT = WorkflowRef("count", takes=Number)
STUCK = WorkflowRef("stuck", takes=Number)
REFUSED = WorkflowRef("refused", takes=Number)


def count(ctx: Context, number: Number) -> Steps[None]:
    for _ in range(2):
        number = yield from INCREASE(ctx, number)


def stuck(ctx: Context, number: Number) -> Steps[None]:
    yield from HANG(ctx, number)


def refused(ctx: Context, number: Number) -> Steps[None]:
    yield from REFUSE(ctx, number)


class Work:
    """The activities, and what they have seen."""

    def __init__(self) -> None:
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.numbers: list[int] = []
        self.executions: list[Execution] = []
        self.hanging = asyncio.Event()
        self.was_cancelled = False

    async def increase(self, number: Number, execution: Execution) -> Number:
        self.loops.add(asyncio.get_running_loop())
        self.numbers.append(number.value)
        self.executions.append(execution)
        return Number(value=number.value + 1)

    async def hang(self, _: Number, __: Execution) -> None:
        self.hanging.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    async def refuse(self, _: Number, execution: Execution) -> None:
        self.executions.append(execution)
        raise NonRetryableError("never")


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def embedded(database_url: str) -> EmbeddedBackend:
    return EmbeddedBackend(database_url)


@pytest.fixture
async def host(embedded: EmbeddedBackend, work: Work) -> AsyncIterator[WorkflowHost]:
    host = WorkflowHost(embedded)
    for ref, orchestrator in ((COUNT, count), (STUCK, stuck), (REFUSED, refused)):
        host.add_workflow(ref, orchestrator)
    host.add_activity(INCREASE, work.increase)
    host.add_activity(HANG, work.hang)
    host.add_activity(REFUSE, work.refuse)
    await host.start()
    yield host
    await host.stop(grace_s=0.2)
    close_leftovers(host._runtime)


@pytest.fixture
async def starter(embedded: EmbeddedBackend, host: WorkflowHost) -> AsyncIterator[WorkflowStarter]:
    starter = WorkflowStarter(embedded)
    yield starter
    await starter.close()


async def end(starter: WorkflowStarter, instance_id: str) -> None:
    async def is_over() -> bool:
        return not await starter.is_alive(instance_id)

    await until(is_over)


async def test_activities_run_on_the_application_s_loop_with_a_key_for_each_call(
    starter: WorkflowStarter, work: Work
) -> None:
    assert await starter.start(COUNT, Number(value=1), instance_id="count-1")
    await end(starter, "count-1")
    assert work.numbers == [1, 2]
    assert work.loops == {asyncio.get_running_loop()}
    assert {execution.instance_id for execution in work.executions} == {"count-1"}
    assert len({execution.task_execution_id for execution in work.executions}) == 2


async def test_starting_twice_starts_once_also_after_the_end(starter: WorkflowStarter, work: Work) -> None:
    assert await starter.start(COUNT, Number(value=1), instance_id="count-1")
    assert not await starter.start(COUNT, Number(value=1), instance_id="count-1")
    await end(starter, "count-1")
    assert not await starter.start(COUNT, Number(value=1), instance_id="count-1")
    assert len(work.executions) == 2


async def test_a_purged_instance_can_be_started_again(starter: WorkflowStarter, work: Work) -> None:
    await starter.start(COUNT, Number(value=1), instance_id="count-1")
    await end(starter, "count-1")
    await starter.purge("count-1")
    await starter.purge("count-1")
    assert await starter.start(COUNT, Number(value=1), instance_id="count-1")
    await end(starter, "count-1")
    assert len(work.executions) == 4


async def test_an_instance_is_only_forgotten_once_it_has_ended(starter: WorkflowStarter, work: Work) -> None:
    await starter.start(STUCK, Number(value=1), instance_id="stuck-1")
    await work.hanging.wait()
    with pytest.raises(InstanceStillRunning):
        await starter.purge("stuck-1")
    assert await starter.is_alive("stuck-1")


async def test_an_instance_that_never_was_is_not_alive_and_forgotten_already(starter: WorkflowStarter) -> None:
    assert not await starter.is_alive("nobody")
    await starter.purge("nobody")


async def test_a_hopeless_activity_is_tried_once(starter: WorkflowStarter, work: Work) -> None:
    await starter.start(REFUSED, Number(value=1), instance_id="refused-1")
    await end(starter, "refused-1")
    assert len(work.executions) == 1


async def test_stopping_cancels_a_running_activity_and_leaves_it_for_the_next_start(
    starter: WorkflowStarter, host: WorkflowHost, work: Work
) -> None:
    await starter.start(STUCK, Number(value=1), instance_id="stuck-1")
    await work.hanging.wait()
    await host.stop(grace_s=0.1)
    assert work.was_cancelled


async def test_the_host_is_ready_when_its_worker_is_connected_and_not_before(host: WorkflowHost) -> None:
    await until_true(host.ready)


async def test_without_a_sidecar_start_and_stop_are_quick_and_calls_fail_with_a_sentence() -> None:
    nowhere = DaprBackend(Address("127.0.0.1:9"))
    host, starter = WorkflowHost(nowhere), WorkflowStarter(nowhere)
    host.add_workflow(COUNT, count)
    async with asyncio.timeout(10):
        await host.start()
        assert not host.ready()
        with pytest.raises(WorkflowsUnavailable, match="UNAVAILABLE"):
            await starter.is_alive("any")
        await starter.close()
        await host.stop()
    # This worker never got as far as to know its event loop.
    host._runtime = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize(
    ("kind", "environment", "endpoint"),
    [
        (BackendKind.AUTO, {"DAPR_GRPC_ENDPOINT": "sidecar:50001"}, "sidecar:50001"),
        (BackendKind.AUTO, {"DAPR_GRPC_PORT": "3501"}, "127.0.0.1:3501"),
        (BackendKind.AUTO, {"DAPR_HTTP_ENDPOINT": "http://localhost:3500"}, None),
        (BackendKind.AUTO, {}, None),
        (BackendKind.DAPR, {}, "127.0.0.1:50001"),
        (BackendKind.EMBEDDED, {"DAPR_GRPC_PORT": "3501"}, None),
    ],
)
def test_the_engine_is_the_one_that_setting_and_environment_name(
    kind: BackendKind, environment: dict[str, str], endpoint: str | None
) -> None:
    backend = choose_backend(kind, {**environment, "DAPR_API_TOKEN": "t"}, dsn="postgresql:///none")
    if endpoint is None:
        assert isinstance(backend, EmbeddedBackend)
    else:
        assert backend.start() == Address(endpoint, "t")


def test_an_address_does_not_show_its_token() -> None:
    assert "secret" not in repr(Address("127.0.0.1:1", "secret"))
