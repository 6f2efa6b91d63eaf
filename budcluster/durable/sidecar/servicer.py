# ruff: noqa: N802, ARG002 - the protocol names the methods and their arguments
"""The protocol's service: `TaskHubSidecarService`, as far as the Dapr Python SDK 1.19.0 calls it.

Answers and error codes are those of daprd 1.18.3. Nothing here decides anything about workflows.
"""

import asyncio
import contextlib
import hmac
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TypeAlias

import asyncpg
import grpc
import grpc.aio

from budcluster.durable.sidecar import events
from budcluster.durable.sidecar.database import StoreAway
from budcluster.durable.sidecar.dispatcher import Dispatcher
from budcluster.durable.sidecar.instances import NewInstance
from budcluster.durable.sidecar.limits import Limits, PayloadTooLarge
from budcluster.durable.sidecar.protos import (
    PENDING,
    STATEFUL_HISTORY,
    SUSPENDED,
    TERMINAL,
    Empty,
    StringValue,
    pb,
    rpc,
)
from budcluster.durable.sidecar.rerun import RerunRefused, plan_rerun
from budcluster.durable.sidecar.store import InstanceExists, Store
from budcluster.durable.sidecar.watch import Watch

_STATE_SHOWN_WITHIN_S: Final = 10.0
_BEFORE_STREAM_ENDS_S: Final = 1.0  # the SDK reconnects at once, without a pause of its own
_PAGE: Final = 1024
_PAGE_LIMIT: Final = 10_000
_NO_INSTANCE: Final = "no such instance exists"

Row: TypeAlias = Mapping[str, Any]
"""An instance's columns."""
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class TokenGuard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # at run time it is not generic
    """Refuses calls without the API token in the metadata `dapr-api-token`."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

        async def refuse(_request: object, context: Context) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "missing or wrong dapr-api-token")

        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Let the call through when its token is right."""
        given = dict(details.invocation_metadata or ()).get("dapr-api-token", "")
        if hmac.compare_digest(str(given).encode(), self._token):
            return await continuation(details)
        return self._refusal


class Servicer(rpc.TaskHubSidecarServiceServicer):
    """Translates calls into work of the dispatcher and reads of the store."""

    def __init__(self, store: Store, dispatcher: Dispatcher, watch: Watch, limits: Limits) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._watch = watch
        self._limits = limits

    # -- workers ------------------------------------------------------------------------------------------------

    async def Hello(self, request: Empty, context: Context) -> Empty:
        return Empty()

    async def GetWorkItems(self, request: pb.GetWorkItemsRequest, context: Context) -> AsyncIterator[pb.WorkItem]:
        stream = self._dispatcher.connect(keeps_history=STATEFUL_HISTORY in request.capabilities)
        try:
            while (item := await stream.items.get()) is not None:
                yield item
        finally:
            self._dispatcher.disconnect(stream)
        await asyncio.sleep(_BEFORE_STREAM_ENDS_S)

    async def CompleteOrchestratorTask(self, request: pb.WorkflowResponse, context: Context) -> pb.CompleteTaskResponse:
        async with _refusals(context):
            await self._dispatcher.turns.complete(request)
        return pb.CompleteTaskResponse()

    async def CompleteActivityTask(self, request: pb.ActivityResponse, context: Context) -> pb.CompleteTaskResponse:
        async with _refusals(context):
            await self._dispatcher.activities.complete(request)
        return pb.CompleteTaskResponse()

    async def GetInstanceHistory(
        self, request: pb.GetInstanceHistoryRequest, context: Context
    ) -> pb.GetInstanceHistoryResponse:
        async with _refusals(context):
            history = await self._read(lambda: self._store.history(request.instanceId))
            if not history and await self._read(lambda: self._store.read(request.instanceId)) is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, _NO_INSTANCE)
            return pb.GetInstanceHistoryResponse(events=history)

    # -- clients ------------------------------------------------------------------------------------------------

    async def StartInstance(self, request: pb.CreateInstanceRequest, context: Context) -> pb.CreateInstanceResponse:
        async with _refusals(context):
            self._limits.check("The input of the workflow", request.input.value)
            now = datetime.now(UTC)
            new = _new_instance(request, now)
            scheduled_at = None
            if request.HasField("scheduledStartTimestamp"):
                wanted = events.moment_of(request.scheduledStartTimestamp)
                scheduled_at = wanted if wanted > now else None
            await self._dispatcher.turns.start(new, scheduled_at=scheduled_at)
            return pb.CreateInstanceResponse(instanceId=new.instance_id)

    async def GetInstance(self, request: pb.GetInstanceRequest, context: Context) -> pb.GetInstanceResponse:
        async with _refusals(context):
            row = await self._read(lambda: self._store.read(request.instanceId))
            return _state(row, payloads=request.getInputsAndOutputs)

    async def WaitForInstanceStart(self, request: pb.GetInstanceRequest, context: Context) -> pb.GetInstanceResponse:
        async with _refusals(context):
            row = await self._until(request.instanceId, lambda status: status != PENDING)
            return _state(row, payloads=request.getInputsAndOutputs)

    async def WaitForInstanceCompletion(
        self, request: pb.GetInstanceRequest, context: Context
    ) -> pb.GetInstanceResponse:
        async with _refusals(context):
            row = await self._until(request.instanceId, lambda status: status in TERMINAL)
            return _state(row, payloads=request.getInputsAndOutputs)

    async def RaiseEvent(self, request: pb.RaiseEventRequest, context: Context) -> pb.RaiseEventResponse:
        async with _refusals(context):
            self._limits.check(f"The data of event {request.name!r}", request.input.value)
            raised = pb.EventRaisedEvent(name=request.name)
            if request.HasField("input"):
                raised.input.CopyFrom(request.input)
            await self._post(context, request.instanceId, events.event(datetime.now(UTC), eventRaised=raised))
            return pb.RaiseEventResponse()

    async def TerminateInstance(self, request: pb.TerminateRequest, context: Context) -> pb.TerminateResponse:
        async with _refusals(context):
            self._limits.check("The output of the workflow", request.output.value)
            ended = pb.ExecutionTerminatedEvent(recurse=request.recursive)
            if request.HasField("output"):
                ended.input.CopyFrom(request.output)
            event = events.event(datetime.now(UTC), executionTerminated=ended)
            await self._post(context, request.instanceId, event, at_once=True)
            await self._shown(request.instanceId, lambda status: status in TERMINAL)
            return pb.TerminateResponse()

    async def SuspendInstance(self, request: pb.SuspendRequest, context: Context) -> pb.SuspendResponse:
        async with _refusals(context):
            paused = pb.ExecutionSuspendedEvent(input=request.reason)
            await self._post(context, request.instanceId, events.event(datetime.now(UTC), executionSuspended=paused))
            await self._shown(request.instanceId, lambda status: status == SUSPENDED or status in TERMINAL)
            return pb.SuspendResponse()

    async def ResumeInstance(self, request: pb.ResumeRequest, context: Context) -> pb.ResumeResponse:
        async with _refusals(context):
            resumed = pb.ExecutionResumedEvent(input=request.reason)
            await self._post(context, request.instanceId, events.event(datetime.now(UTC), executionResumed=resumed))
            await self._shown(request.instanceId, lambda status: status != SUSPENDED)
            return pb.ResumeResponse()

    async def PurgeInstances(self, request: pb.PurgeInstancesRequest, context: Context) -> pb.PurgeInstancesResponse:
        async with _refusals(context):
            if not request.instanceId:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "purging by filter is not supported")
            count = await self._read(lambda: self._store.purge(request.instanceId, recursive=request.recursive))
            if count is None:
                message = "failed to purge workflow state: orchestration has not yet completed"
                await context.abort(grpc.StatusCode.UNKNOWN, message)
            response = pb.PurgeInstancesResponse(deletedInstanceCount=count)
            response.isComplete.value = True
            return response

    async def ListInstanceIDs(self, request: pb.ListInstanceIDsRequest, context: Context) -> pb.ListInstanceIDsResponse:
        async with _refusals(context):
            size = min(request.pageSize or _PAGE, _PAGE_LIMIT)
            ids = await self._read(lambda: self._store.list_ids(request.continuationToken, size + 1))
            response = pb.ListInstanceIDsResponse(instanceIds=ids[:size])
            if len(ids) > size:
                response.continuationToken = ids[size - 1]
            return response

    async def RerunWorkflowFromEvent(
        self, request: pb.RerunWorkflowFromEventRequest, context: Context
    ) -> pb.RerunWorkflowFromEventResponse:
        async with _refusals(context):
            new_id = request.newInstanceID if request.HasField("newInstanceID") else uuid.uuid4().hex
            self._limits.check("The input of the event", request.input.value)
            row = await self._read(lambda: self._store.read(request.sourceInstanceID))
            if row is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, _NO_INSTANCE)
            history = await self._read(lambda: self._store.history(request.sourceInstanceID))
            is_final = row["status"] in TERMINAL
            plan = plan_rerun(
                request,
                history,
                new_id=new_id,
                is_final=is_final,
                is_child=row["parent_id"] is not None,
                now=datetime.now(UTC),
                new_execution=lambda: uuid.uuid4().hex,
            )
            await self._dispatcher.rerun(plan)
            return pb.RerunWorkflowFromEventResponse(newInstanceID=new_id)

    # -- shared -------------------------------------------------------------------------------------------------

    async def _read(self, statement: Callable[[], Awaitable[Any]]) -> Any:
        return await self._store.patiently(statement, patience_s=10)

    async def _post(self, context: Context, instance_id: str, event: pb.HistoryEvent, *, at_once: bool = False) -> None:
        if await self._dispatcher.post(instance_id, event, at_once=at_once) is None:
            await context.abort(grpc.StatusCode.UNKNOWN, _NO_INSTANCE)

    async def _until(self, instance_id: str, is_reached: Callable[[int], bool]) -> Row | None:
        """The instance's row as soon as the condition holds; None when there is no such instance."""
        subscription = self._watch.subscribe(instance_id)
        try:
            while True:
                row = await self._store.patiently(lambda: self._store.read(instance_id))
                if row is None or is_reached(row["status"]):
                    return row
                await subscription.worth_a_look(is_reached)
                change = subscription.change
                if (
                    change is not None
                    and change["execution_id"] == row["execution_id"]
                    and is_reached(change["status"])
                ):
                    return {**row, **change}  # what a look would find
        finally:
            self._watch.unsubscribe(instance_id, subscription)

    async def _shown(self, instance_id: str, is_reached: Callable[[int], bool]) -> None:
        """Wait until the state shows what was asked for, where a worker is there to bring it about."""
        if not self._dispatcher.desk.streams:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STATE_SHOWN_WITHIN_S):
                await self._until(instance_id, is_reached)


class _refusals:  # noqa: N801 - reads as a statement
    """Turns the errors of the layers below into the status codes that daprd gives."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        match error:
            case PayloadTooLarge():
                await self._abort(grpc.StatusCode.RESOURCE_EXHAUSTED, error)
            case InstanceExists():
                await self._abort(grpc.StatusCode.ALREADY_EXISTS, error)
            case RerunRefused():
                await self._abort(error.code, error)
            case StoreAway():
                await self._abort(grpc.StatusCode.UNAVAILABLE, error)
            case asyncpg.DataError() | asyncpg.ProgramLimitExceededError():
                await self._abort(grpc.StatusCode.INVALID_ARGUMENT, error)
            case _:
                return

    async def _abort(self, code: grpc.StatusCode, error: BaseException) -> NoReturn:
        await self._context.abort(code, str(error))
        raise AssertionError("abort always raises")


def _new_instance(request: pb.CreateInstanceRequest, now: datetime) -> NewInstance:
    execution_id = uuid.uuid4().hex
    started = pb.ExecutionStartedEvent(name=request.name, tags=dict(request.tags))
    for name in ("version", "input", "scheduledStartTimestamp", "parentTraceContext"):
        if request.HasField(name):
            getattr(started, name).CopyFrom(getattr(request, name))
    instance_id = request.instanceId or uuid.uuid4().hex
    started.workflowInstance.instanceId = instance_id
    started.workflowInstance.executionId.value = execution_id
    return NewInstance(instance_id, execution_id, events.event(now, executionStarted=started))


def _state(row: Row | None, *, payloads: bool) -> pb.GetInstanceResponse:
    if row is None:
        return pb.GetInstanceResponse(exists=False)
    state = pb.WorkflowState(
        instanceId=row["instance_id"],
        name=row["name"],
        workflowStatus=row["status"],
        createdTimestamp=events.timestamp(row["created_at"]),
        lastUpdatedTimestamp=events.timestamp(row["updated_at"]),
        executionId=StringValue(value=row["execution_id"]),
    )
    for field, column in (("scheduledStartTimestamp", "scheduled_at"), ("completedTimestamp", "completed_at")):
        if row[column] is not None:
            getattr(state, field).CopyFrom(events.timestamp(row[column]))
    texts = [("version", "version"), ("parentInstanceId", "parent_id")]
    if payloads:
        texts += [("input", "input"), ("output", "output"), ("customStatus", "custom_status")]
    for field, column in texts:
        if row[column] is not None:
            getattr(state, field).value = row[column]
    if row["failure"] is not None:
        state.failureDetails.ParseFromString(row["failure"])
    return pb.GetInstanceResponse(exists=True, workflowState=state)
