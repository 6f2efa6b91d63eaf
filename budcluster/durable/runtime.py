"""Runs the workflows and activities of this process: a worker of the engine, bridged to the application's event loop.

The SDK's worker has threads and a loop of its own. Orchestrators run there; activities hop to the application's loop,
where its database pool and clients live. Neither start nor stop blocks that loop, and a sidecar that is away only means
that the worker is not ready yet.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

import dapr.ext.workflow as wf
import structlog

from budcluster.durable.backend import Backend
from budcluster.durable.context import Context, Steps
from budcluster.durable.execution import Execution
from budcluster.durable.refs import ActivityRef, WorkflowRef, decode, encode
from budcluster.durable.sdk import DaprContext, address_of

log = structlog.get_logger(__name__)

_WATCH_EVERY_S: Final = 0.5
_RETRY_PAUSE_S: Final = 2.0
_STOP_LIMIT_S: Final = 60.0

Activity = Callable[[Any, "Execution"], Awaitable[Any]]
Orchestrator = Callable[[Context, Any], Steps[Any]]


class WorkflowHost:
    """One process's worker. Register everything, then start."""

    def __init__(self, backend: Backend, *, threads: int = 32, activities: int = 256) -> None:
        """`threads` for orchestrators and for sending results; `activities` that may run at once."""
        self._backend = backend
        self._threads = threads
        self._activities_limit = activities
        self._workflows: list[tuple[WorkflowRef[Any], Orchestrator]] = []
        self._activities: dict[str, tuple[ActivityRef[Any, Any], Activity]] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._supervisor: threading.Thread | None = None
        self._stopping = threading.Event()
        self._runtime: wf.WorkflowRuntime | None = None
        self._is_ready = False

    def add_workflow(self, ref: WorkflowRef[Any], orchestrator: Orchestrator) -> None:
        """`orchestrator` runs what `ref` names."""
        self._workflows.append((ref, orchestrator))

    def add_activity(self, ref: ActivityRef[Any, Any], activity: Activity) -> None:
        """`activity(payload, execution)` does what `ref` names. Raises ValueError when the name is taken."""
        if ref.name in self._activities:
            raise ValueError(f"activity {ref.name!r} is registered twice")
        self._activities[ref.name] = (ref, activity)

    def ready(self) -> bool:
        """Whether the worker's stream of work is open now."""
        return self._is_ready

    async def start(self) -> None:
        """Connect in the background; returns at once."""
        self._loop = asyncio.get_running_loop()
        self._supervisor = threading.Thread(target=self._supervise, name="workflow-worker", daemon=True)
        self._supervisor.start()

    async def stop(self, *, grace_s: float = 10.0) -> None:
        """Take no new work, give running activities `grace_s` seconds, cancel the rest and end the engine.

        Does nothing the second time.
        """
        if self._stopping.is_set():
            return
        await asyncio.to_thread(self._backend.drain)
        if self._running:
            await asyncio.wait(list(self._running), timeout=grace_s)
        cancelled = list(self._running)
        for task in cancelled:
            task.cancel()
        if cancelled:
            await asyncio.wait(cancelled, timeout=_STOP_LIMIT_S)
        self._stopping.set()
        if self._runtime is not None:
            await self._in_thread(self._runtime.shutdown)
        if self._supervisor is not None:
            await self._in_thread(self._supervisor.join)
        await self._in_thread(lambda: self._backend.stop(grace_s=1.0))

    async def _in_thread(self, work: Callable[[], None]) -> None:
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await asyncio.to_thread(work)
        except TimeoutError:
            log.warning("workflow_worker.stop_timed_out", limit_s=_STOP_LIMIT_S)

    # -- the supervisor's thread --------------------------------------------------------------------------------

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            try:
                self._connect_and_watch()
            except Exception:  # background loop: whatever it is, the API lives on and this is tried again
                if not self._stopping.is_set():
                    log.exception("workflow_worker.failed")
            self._is_ready = False
            self._stopping.wait(_RETRY_PAUSE_S)

    def _connect_and_watch(self) -> None:
        address = self._backend.start()
        with address_of(address) as logger_options:
            runtime = wf.WorkflowRuntime(
                logger_options=logger_options,
                maximum_thread_pool_workers=self._threads,
                maximum_concurrent_activity_work_items=self._activities_limit,
            )
        self._register(runtime)
        self._runtime = runtime
        if self._stopping.is_set():
            return
        runtime.start()  # type: ignore[no-untyped-call]  # blocks until there is a sidecar; shutdown() from another thread releases it
        while not self._stopping.wait(_WATCH_EVERY_S if self._is_ready else 0.0):
            is_ready = bool(runtime.wait_for_worker_ready(0.05))
            if is_ready != self._is_ready:
                self._is_ready = is_ready
                log.info("workflow_worker.connected" if is_ready else "workflow_worker.disconnected")

    def _register(self, runtime: wf.WorkflowRuntime) -> None:
        for workflow, orchestrator in self._workflows:
            runtime.register_workflow(_orchestrator(workflow, orchestrator), name=workflow.name)
        for ref, activity in self._activities.values():
            runtime.register_activity(self._bridge(ref, activity), name=ref.name)

    def _bridge(self, ref: ActivityRef[Any, Any], activity: Activity) -> Callable[..., Awaitable[Any]]:
        """The activity as the SDK calls it, on the worker's loop: it runs on the application's."""

        async def run(ctx: Any, raw: Any = None) -> Any:
            execution = Execution(ctx.workflow_id, ctx.get_inner_context().task_execution_id)
            payload = decode(ref.takes, raw, what=ref.name)
            assert self._loop is not None
            future = asyncio.run_coroutine_threadsafe(self._run(activity, payload, execution), self._loop)
            return encode(await asyncio.wrap_future(future))

        return run

    async def _run(self, activity: Activity, payload: Any, execution: Execution) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await activity(payload, execution)
        finally:
            self._running.discard(task)


def _orchestrator(ref: WorkflowRef[Any], orchestrator: Orchestrator) -> Callable[..., Generator[Any, Any, Any]]:
    """The orchestrator as the SDK calls it. A function of its own each time: the SDK marks what it registered."""

    def run(ctx: Any, raw: Any = None) -> Generator[Any, Any, Any]:
        payload = decode(ref.takes, raw, what=ref.name)
        return encode((yield from orchestrator(DaprContext(ctx), payload)))

    return run
