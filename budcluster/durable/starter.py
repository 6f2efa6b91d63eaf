"""Starts workflows and asks about them. The SDK's calls block, so they run in a few threads of their own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from budcluster.durable.backend import Backend
from budcluster.durable.errors import InstanceStillRunning, UnknownInstance, WorkflowsUnavailable
from budcluster.durable.refs import In, WorkflowRef, encode

if TYPE_CHECKING:
    import dapr.ext.workflow as wf

Result = TypeVar("Result")

_THREADS: Final = 4
_ENDED: Final = frozenset({"COMPLETED", "FAILED", "TERMINATED"})


class WorkflowStarter:
    """The way of services to workflows. Every call ends within about 30 seconds; raises WorkflowsUnavailable then."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="workflow-client")
        self._client: wf.DaprWorkflowClient | None = None
        self._connecting = threading.Lock()

    async def start(self, workflow: WorkflowRef[In], payload: In, *, instance_id: str) -> bool:
        """Start the instance unless there is one with this id, whether it runs or has ended.

        Safe to repeat; returns whether this call started it. An ended instance is started anew after `purge`.
        """
        if await self._status(instance_id) is not None:
            return False
        data = encode(payload)
        return await self._call(lambda client: _schedule(client, workflow.name, data, instance_id))

    async def is_alive(self, instance_id: str) -> bool:
        """Whether the instance exists and has not ended."""
        return await self._status(instance_id) not in {None, *_ENDED}

    async def purge(self, instance_id: str) -> None:
        """Forget an ended instance. One that does not exist is no error. Raises InstanceStillRunning."""
        with contextlib.suppress(UnknownInstance):
            await self._call(lambda client: client.purge_workflow(instance_id, recursive=True), about=instance_id)

    async def close(self) -> None:
        """Give back the connection and the threads."""
        if self._client is not None:
            await asyncio.to_thread(self._client.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _status(self, instance_id: str) -> str | None:
        """The engine's name of where the instance stands; None when it knows none."""
        found = await self._call(lambda client: client.get_workflow_state(instance_id))
        return None if found is None else str(found.runtime_status.name)

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
