"""Starts workflows and asks about them. The SDK's calls block, so they run in a few threads of their own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel

from budcluster.durable.backend import Backend
from budcluster.durable.errors import InstanceStillRunning, UnknownInstance, WorkflowsUnavailable
from budcluster.durable.refs import In, WorkflowRef, encode

if TYPE_CHECKING:
    import dapr.ext.workflow as wf

Result = TypeVar("Result")

_THREADS: Final = 4


class InstanceStatus(StrEnum):
    """Where an instance stands. The last three are final."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    STALLED = "STALLED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TERMINATED = "TERMINATED"

    @property
    def is_final(self) -> bool:
        return self in (InstanceStatus.COMPLETED, InstanceStatus.FAILED, InstanceStatus.TERMINATED)


@dataclass(frozen=True, slots=True)
class InstanceState:
    """An instance, as the engine knows it."""

    instance_id: str
    status: InstanceStatus
    created_at: datetime
    custom_status: str | None = None
    output: str | None = None
    """JSON."""
    error_type: str | None = None
    error_message: str | None = None


class WorkflowStarter:
    """The way of services to workflows. Every call ends within about 30 seconds; raises WorkflowsUnavailable then."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="workflow-client")
        self._client: wf.DaprWorkflowClient | None = None
        self._connecting = threading.Lock()

    async def start(self, workflow: WorkflowRef[In, Any], payload: In, *, instance_id: str) -> bool:
        """Start the instance unless there is one with this id, whether it runs or has ended.

        Safe to repeat; returns whether this call started it. An ended instance is started anew after `purge`.
        """
        if await self.state(instance_id) is not None:
            return False
        data = encode(payload)
        return await self._call(lambda client: _schedule(client, workflow.name, data, instance_id))

    async def state(self, instance_id: str) -> InstanceState | None:
        """What the engine knows of the instance; None when nothing."""
        return await self._call(lambda client: _state(client.get_workflow_state(instance_id)))

    async def is_alive(self, instance_id: str) -> bool:
        """Whether the instance exists and has not ended."""
        state = await self.state(instance_id)
        return state is not None and not state.status.is_final

    async def raise_event(self, instance_id: str, name: str, payload: BaseModel) -> None:
        """Send the instance an event; it is kept until the instance waits for it. Raises UnknownInstance."""
        data = encode(payload)
        await self._call(lambda client: client.raise_workflow_event(instance_id, name, data=data), about=instance_id)

    async def terminate(self, instance_id: str) -> None:
        """End the instance and its children without compensation; running activities go on. Raises UnknownInstance."""
        await self._call(lambda client: client.terminate_workflow(instance_id, recursive=True), about=instance_id)

    async def purge(self, instance_id: str) -> None:
        """Forget an ended instance. One that does not exist is no error. Raises InstanceStillRunning."""
        with contextlib.suppress(UnknownInstance):
            await self._call(lambda client: client.purge_workflow(instance_id, recursive=True), about=instance_id)

    async def close(self) -> None:
        """Give back the connection and the threads."""
        if self._client is not None:
            await asyncio.to_thread(self._client.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, work: "Callable[[wf.DaprWorkflowClient], Result]", *, about: str = "") -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call_here, work, about)

    def _call_here(self, work: "Callable[[wf.DaprWorkflowClient], Result]", about: str) -> Result:
        import grpc  # noqa: PLC0415 - takes half a second, and a command line that only asks for help has no use for it

        try:
            return work(self._connect())
        except grpc.RpcError as error:
            raise _translated(error, about) from error

    def _connect(self) -> "wf.DaprWorkflowClient":
        import dapr.ext.workflow as wf  # noqa: PLC0415 - see above

        from budcluster.durable.sdk import address_of  # noqa: PLC0415 - see above

        with self._connecting:
            if self._client is None:
                with address_of(self._backend.start()) as logger_options:
                    self._client = wf.DaprWorkflowClient(logger_options=logger_options)
            return self._client


def _schedule(client: "wf.DaprWorkflowClient", name: str, data: Any, instance_id: str) -> bool:
    import grpc  # noqa: PLC0415 - loaded by now

    try:
        client.schedule_new_workflow(name, input=data, instance_id=instance_id)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.ALREADY_EXISTS:
            return False
        raise
    return True


def _translated(error: Any, instance_id: str) -> Exception:
    """Daprd 1.18.3 answers UNKNOWN to most refusals; what it means is in the text."""
    details = str(error.details() or "")
    if "no such instance exists" in details:
        return UnknownInstance(instance_id)
    if "has not yet completed" in details:
        return InstanceStillRunning(instance_id)
    return WorkflowsUnavailable(f"The workflow engine answered {error.code().name}: {details[:200]}")


def _state(found: "wf.WorkflowState | None") -> InstanceState | None:
    if found is None:
        return None
    failure = found.failure_details
    return InstanceState(
        instance_id=found.instance_id,
        status=InstanceStatus(found.runtime_status.name),
        created_at=found.created_at.replace(tzinfo=UTC),
        custom_status=found.serialized_custom_status or None,
        output=found.serialized_output or None,
        error_type=None if failure is None else failure.error_type,
        error_message=None if failure is None else failure.message,
    )
