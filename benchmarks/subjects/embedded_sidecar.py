"""Our durable layer in one process: SDK worker, embedded sidecar, PostgreSQL with fsync. Or a live sidecar.

`DSN` names the database; with `DAPR_GRPC_ENDPOINT` a live Dapr sidecar is measured instead. `memory` as the argument
measures what 1,000 waiting workflows add to the service.
"""

import asyncio
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import dapr.ext.workflow as wf
from pydantic import BaseModel

from benchmarks.subjects.tiny import measure, report
from budcluster.durable.backend import BackendKind, choose_backend
from budcluster.durable.context import Context, Steps, wait_for_event
from budcluster.durable.refs import WorkflowRef
from budcluster.durable.runtime import WorkflowHost
from budcluster.durable.sdk import address_of
from budcluster.durable.starter import WorkflowStarter

WAITING = 1_000


class Number(BaseModel):
    value: int


WAIT = WorkflowRef("bench_wait", takes=Number, gives=Number)


def wait(ctx: Context, _: Number) -> Steps[Number]:
    return (yield from wait_for_event(ctx, "go", takes=Number))


def speed() -> None:
    """The SDK's bare worker, as the other engine is measured with its own."""
    backend = choose_backend(BackendKind.AUTO, os.environ, dsn=os.environ["DSN"])
    with address_of(backend.start()) as options:
        runtime = wf.WorkflowRuntime(logger_options=options)
        client = wf.DaprWorkflowClient(logger_options=options)

    @runtime.activity(name="bench_echo")
    def echo(_: wf.WorkflowActivityContext, value: int) -> int:
        return value

    @runtime.workflow(name="bench_tiny")
    def tiny(ctx: wf.DaprWorkflowContext, value: int) -> Generator[Any, Any, int]:
        return (yield ctx.call_activity(echo, input=value))

    def run_one() -> None:
        instance_id = client.schedule_new_workflow(tiny, input=1)
        state = client.wait_for_workflow_completion(instance_id, timeout_in_seconds=30)
        assert state is not None
        assert state.runtime_status == wf.WorkflowStatus.COMPLETED

    runtime.start()
    report(measure(run_one))
    client.close()
    runtime.shutdown()
    backend.stop(grace_s=1)


async def memory() -> None:
    import budcluster.server  # noqa: F401, PLC0415 - what the service holds anyway

    before = _rss_mb()
    backend = choose_backend(BackendKind.AUTO, os.environ, dsn=os.environ["DSN"])
    host, starter = WorkflowHost(backend), WorkflowStarter(backend)
    host.add_workflow(WAIT, wait)
    await host.start()
    async with asyncio.timeout(30):
        while not host.ready():  # noqa: ASYNC110 - the host is ready when its own thread says so
            await asyncio.sleep(0.01)
    idle = _rss_mb()
    await asyncio.gather(*(starter.start(WAIT, Number(value=n), instance_id=f"wait-{n}") for n in range(WAITING)))
    report({"before_mb": before, "idle_mb": idle, "waiting_mb": _rss_mb()})
    await starter.close()
    await host.stop()


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


if __name__ == "__main__":
    asyncio.run(memory()) if sys.argv[1:] == ["memory"] else speed()
