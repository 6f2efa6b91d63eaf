"""The embedded sidecar beyond what any backend must do: limits, access, replicas, upkeep, versions."""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import dapr.ext.workflow as wf
import grpc
import pytest

from budcluster.durable.sidecar.limits import Limits
from budcluster.durable.sidecar.protos import StringValue, pb, rpc
from budcluster.durable.sidecar.server import EmbeddedSidecar, SidecarNotStarted
from tests.fixtures.workflows import TOKEN, Backend, embedded_backend
from tests.waiting import eventually

STATUS = wf.WorkflowStatus


def register(runtime: wf.WorkflowRuntime) -> None:
    @runtime.activity(name="echo")
    async def echo(ctx: wf.WorkflowActivityContext, value: Any) -> Any:
        return value

    @runtime.workflow(name="tiny")
    def tiny(ctx: wf.DaprWorkflowContext, value: Any):
        return (yield ctx.call_activity("echo", input=value))

    @runtime.workflow(name="bulky")
    def bulky(ctx: wf.DaprWorkflowContext, size: int):
        yield ctx.call_activity("echo", input="x" * size)

    @runtime.workflow(name="talkative")
    def talkative(ctx: wf.DaprWorkflowContext, _: Any):
        for _ in range(1000):
            yield ctx.call_activity("echo", input="x" * 500)

    @runtime.workflow(name="waits")
    def waits(ctx: wf.DaprWorkflowContext, _: Any):
        return (yield ctx.wait_for_external_event("go"))


def ended(client: wf.DaprWorkflowClient, instance_id: str) -> wf.WorkflowState:
    state = client.wait_for_workflow_completion(instance_id, timeout_in_seconds=60)
    assert state is not None
    return state


def seconds_of_one(client: wf.DaprWorkflowClient) -> float:
    began = time.monotonic()
    ended(client, client.schedule_new_workflow("tiny", input=1))
    return time.monotonic() - began


@pytest.fixture
def strict(database_url: str) -> Iterator[Backend]:
    with embedded_backend(database_url, Limits(payload_bytes=2048, history_bytes=16_384)) as backend:
        yield backend


class TestLimits:
    def test_too_large_an_input_or_event_is_refused_with_a_sentence(self, strict: Backend) -> None:
        with strict.worker(register), strict.client() as client:
            with pytest.raises(grpc.RpcError) as refusal:
                client.schedule_new_workflow("tiny", input="x" * 3000)
            assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "keep large data in the database and pass its id" in refusal.value.details()
            waiting = client.schedule_new_workflow("waits")
            with pytest.raises(grpc.RpcError, match="The data of event 'go' has 3002 bytes"):
                client.raise_workflow_event(waiting, "go", data="x" * 3000)

    def test_too_large_an_activity_input_fails_that_workflow_alone(self, strict: Backend) -> None:
        with strict.worker(register), strict.client() as client:
            waiting = client.schedule_new_workflow("waits")
            state = ended(client, client.schedule_new_workflow("bulky", input=3000))
            assert state.runtime_status == STATUS.FAILED
            assert "The input of activity 'echo' has 3002 bytes and at most 2048" in state.failure_details.message
            client.raise_workflow_event(waiting, "go", data="fine")
            assert ended(client, waiting).runtime_status == STATUS.COMPLETED

    def test_too_long_a_history_fails_that_workflow_with_a_sentence(self, strict: Backend) -> None:
        with strict.worker(register), strict.client() as client:
            state = ended(client, client.schedule_new_workflow("talkative"))
            assert state.runtime_status == STATUS.FAILED
            assert state.failure_details.error_type == "HistoryTooLarge"
            assert ended(client, client.schedule_new_workflow("tiny", input=1)).runtime_status == STATUS.COMPLETED

    def test_a_text_that_postgresql_cannot_store_fails_that_workflow_alone(self, strict: Backend) -> None:
        def with_nul(runtime: wf.WorkflowRuntime) -> None:
            @runtime.workflow(name="nul")
            def nul(ctx: wf.DaprWorkflowContext, _: Any):
                ctx.set_custom_status("a\0b")
                yield ctx.create_timer(timedelta(0))

        with strict.worker(with_nul), strict.client() as client:
            state = ended(client, client.schedule_new_workflow("nul"))
            assert state.runtime_status == STATUS.FAILED
            assert state.failure_details.error_type == "DataRefused"


class TestAccess:
    @pytest.mark.parametrize("token", ["", "wrong"])
    def test_a_caller_without_the_token_is_refused(self, strict: Backend, token: str) -> None:
        stranger = Backend(strict.endpoint, token, is_embedded=True)
        with stranger.client() as client, pytest.raises(grpc.RpcError) as refusal:
            client.schedule_new_workflow("tiny")
        assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED

    def test_it_listens_on_a_unix_socket_as_well(self, database_url: str, tmp_path: Path) -> None:
        sidecar = EmbeddedSidecar(database_url, token=TOKEN, address=f"unix:{tmp_path}/s")
        sidecar.start()
        backend = Backend(sidecar.endpoint, TOKEN, is_embedded=True)
        with backend.worker(register), backend.client() as client:
            assert json.loads(ended(client, client.schedule_new_workflow("tiny", input=5)).serialized_output) == 5
        sidecar.stop()

    def test_it_says_why_it_cannot_listen(self, strict: Backend, database_url: str) -> None:
        with pytest.raises(SidecarNotStarted, match=strict.endpoint):
            EmbeddedSidecar(database_url, token=TOKEN, address=strict.endpoint).start()


class TestReplicas:
    def test_a_start_on_one_replica_wakes_the_worker_of_another(self, database_url: str) -> None:
        with embedded_backend(database_url) as near, embedded_backend(database_url) as far:
            assert near.sidecar is not None
            assert far.sidecar is not None
            eventually(lambda: near.sidecar.snapshot().get("owners") == far.sidecar.snapshot().get("owners") == 2)
            with far.worker(register), near.client() as client:
                assert statistics.median(seconds_of_one(client) for _ in range(9)) < 0.4

    def test_a_worker_that_goes_away_leaves_its_work_to_the_next(self, strict: Backend) -> None:
        with strict.client() as client:
            instance_id = client.schedule_new_workflow("tiny", input=3)
            with grpc.insecure_channel(strict.endpoint) as channel:
                schedule_echo_and_leave(rpc.TaskHubSidecarServiceStub(channel))
            with strict.worker(register):
                assert json.loads(ended(client, instance_id).serialized_output) == 3


def schedule_echo_and_leave(stub: Any) -> None:
    """A worker by hand: answers the first turn, takes the activity, and goes away with it."""
    metadata = [("dapr-api-token", TOKEN)]
    items = stub.GetWorkItems(pb.GetWorkItemsRequest(), metadata=metadata)
    turn = next(items)
    echo = pb.WorkflowAction(id=1, scheduleTask=pb.ScheduleTaskAction(name="echo", input=StringValue(value="3")))
    answer = pb.WorkflowResponse(
        instanceId=turn.workflowRequest.instanceId, completionToken=turn.completionToken, actions=[echo]
    )
    stub.CompleteOrchestratorTask(answer, metadata=metadata)
    assert next(items).activityRequest.name == "echo"
    items.cancel()


class TestUpkeep:
    async def test_old_finished_instances_are_forgotten_and_others_stay(self, database_url: str) -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "insert into wf_instances (instance_id, execution_id, name, status, completed_at)"
            " values ('old', 'e', 'n', 1, now() - interval '2 days'), ('new', 'e', 'n', 1, now()),"
            "        ('running', 'e', 'n', 0, null)"
        )
        await connection.execute("insert into wf_history values ('old', 0, array[''::bytea])")
        with embedded_backend(database_url, Limits(keep_finished=timedelta(days=1))):
            async with asyncio.timeout(10):
                while await connection.fetchval("select count(*) from wf_instances where instance_id = 'old'"):
                    pass
        left = await connection.fetch("select instance_id from wf_instances order by 1")
        assert [row["instance_id"] for row in left] == ["new", "running"]
        assert await connection.fetchval("select count(*) from wf_history") == 0
        await connection.close()

    async def test_ten_thousand_finished_instances_do_not_slow_new_ones(self, database_url: str) -> None:
        with embedded_backend(database_url) as backend, backend.worker(register), backend.client() as client:
            # The quickest of many: what else the machine does slows some of them, and never makes one quicker.
            before = min([seconds_of_one(client) for _ in range(40)][10:])
            connection = await asyncpg.connect(database_url)
            await connection.execute(
                "insert into wf_instances (instance_id, execution_id, name, status, completed_at)"
                " select 'done-' || n, 'e', 'tiny', 1, now() from generate_series(1, 10000) n"
            )
            await connection.execute(
                "insert into wf_history select 'done-' || n, 0, array[repeat('x', 300)::bytea]"
                " from generate_series(1, 10000) n"
            )
            await connection.close()
            after = min([seconds_of_one(client) for _ in range(40)][10:])
        assert after < before * 1.5 + 0.005

    def test_draining_lets_a_running_activity_finish_and_takes_nothing_new(self, database_url: str) -> None:
        sidecar = EmbeddedSidecar(database_url, token=TOKEN)
        sidecar.start()
        backend = Backend(sidecar.endpoint, TOKEN, is_embedded=True)
        with backend.worker(register), backend.client() as client:
            client.wait_for_workflow_start(client.schedule_new_workflow("waits"), timeout_in_seconds=10)
            sidecar.drain()
            late = client.schedule_new_workflow("tiny", input=1)
            assert client.get_workflow_state(late).runtime_status == STATUS.PENDING
            sidecar.stop(grace_s=1)
        with embedded_backend(database_url) as again, again.worker(register), again.client() as client:
            assert ended(client, late).runtime_status == STATUS.COMPLETED

    def test_numbers_for_metrics_tell_what_happened(self, strict: Backend) -> None:
        assert strict.sidecar is not None
        with strict.worker(register), strict.client() as client:
            ended(client, client.schedule_new_workflow("tiny", input=1))
        numbers = strict.sidecar.snapshot()
        assert numbers["turns_committed"] == 2
        assert numbers["tasks_finished"] == 1
        assert numbers["owner_registrations"] == 1


class TestChangedWorkflows:
    def test_a_patch_leaves_running_instances_on_their_old_way(self, strict: Backend) -> None:
        def before(runtime: wf.WorkflowRuntime) -> None:
            register(runtime)

            @runtime.workflow(name="changing")
            def changing(ctx: wf.DaprWorkflowContext, _: Any):
                yield ctx.wait_for_external_event("go")
                return "old"

        def after(runtime: wf.WorkflowRuntime) -> None:
            register(runtime)

            @runtime.workflow(name="changing")
            def changing(ctx: wf.DaprWorkflowContext, _: Any):
                is_new = ctx.is_patched("greets-first")
                if is_new:
                    yield ctx.call_activity("echo", input="hello")
                yield ctx.wait_for_external_event("go")
                return "new" if is_new else "old"

        with strict.client() as client:
            with strict.worker(before):
                old = client.schedule_new_workflow("changing")
                eventually(lambda: len(client.get_workflow_history(old)) == 3)
            with strict.worker(after):
                new = client.schedule_new_workflow("changing")
                for instance_id in (old, new):
                    client.raise_workflow_event(instance_id, "go", data=1)
                assert json.loads(ended(client, old).serialized_output) == "old"
                assert json.loads(ended(client, new).serialized_output) == "new"

    def test_instances_stay_with_their_version_and_stall_while_no_worker_has_it(self, strict: Backend) -> None:
        def versions(*names: str) -> Any:
            def register_versions(runtime: wf.WorkflowRuntime) -> None:
                for name in names:
                    runtime.register_versioned_workflow(
                        _answering(name), name="versioned", version_name=name, is_latest=name == names[-1]
                    )

            return register_versions

        with strict.client() as client:
            with strict.worker(versions("v1")):
                first = client.schedule_new_workflow("versioned")
                eventually(lambda: len(client.get_workflow_history(first)) == 3)
            with strict.worker(versions("v2")):
                client.raise_workflow_event(first, "go", data=1)
                eventually(lambda: client.get_workflow_state(first).runtime_status == STATUS.STALLED)
                second = client.schedule_new_workflow("versioned")
                client.raise_workflow_event(second, "go", data=1)
                assert json.loads(ended(client, second).serialized_output) == "v2"
            with strict.worker(versions("v1", "v2")):
                assert json.loads(ended(client, first).serialized_output) == "v1"

    def test_a_stalled_instance_can_be_terminated(self, strict: Backend) -> None:
        with strict.client() as client:
            with strict.worker(lambda runtime: _register_version(runtime, "v1")):
                instance_id = client.schedule_new_workflow("versioned")
                eventually(lambda: len(client.get_workflow_history(instance_id)) == 3)
            with strict.worker(lambda runtime: _register_version(runtime, "v2")):
                client.raise_workflow_event(instance_id, "go", data=1)
                eventually(lambda: client.get_workflow_state(instance_id).runtime_status == STATUS.STALLED)
                client.terminate_workflow(instance_id)
                assert client.get_workflow_state(instance_id).runtime_status == STATUS.TERMINATED


def _answering(answer: str) -> Any:
    def versioned(ctx: wf.DaprWorkflowContext, _: Any):
        yield ctx.wait_for_external_event("go")
        return answer

    return versioned


def _register_version(runtime: wf.WorkflowRuntime, name: str) -> None:
    runtime.register_versioned_workflow(_answering(name), name="versioned", version_name=name, is_latest=True)
