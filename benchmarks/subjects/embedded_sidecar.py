"""Our durable layer in one process: SDK worker, embedded sidecar, PostgreSQL with fsync. Or a live sidecar.

`DSN` names the database; with `DAPR_GRPC_ENDPOINT` a live Dapr sidecar is measured instead. `memory` as the argument
measures what 1,000 waiting workflows add to the service.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import dapr.ext.workflow as wf
from pydantic import BaseModel

from benchmarks.subjects.tiny import CLIENTS, measure, report
from budcluster.durable.backend import BackendKind, choose_backend
from budcluster.durable.context import Context, Steps, wait_for_event
from budcluster.durable.refs import NEVER, ActivityRef, WorkflowRef
from budcluster.durable.runtime import Execution, WorkflowHost
from budcluster.durable.sdk import address_of

WAITING = 1_000


class Number(BaseModel):
    value: int


ECHO = ActivityRef("bench_echo", takes=Number, gives=Number, retry=NEVER)
TINY = WorkflowRef("bench_tiny", takes=Number, gives=Number)
WAIT = WorkflowRef("bench_wait", takes=Number, gives=Number)


async def echo(number: Number, _: Execution) -> Number:
    return number


def tiny(ctx: Context, number: Number) -> Steps[Number]:
    return (yield from ECHO(ctx, number))


def wait(ctx: Context, _: Number) -> Steps[Number]:
    return (yield from wait_for_event(ctx, "go", takes=Number))


@asynccontextmanager
async def engine() -> AsyncIterator[wf.DaprWorkflowClient]:
    """A host that is connected, and a client."""
    backend = choose_backend(BackendKind.AUTO, os.environ, dsn=os.environ["DSN"])
    host = WorkflowHost(backend)
    host.add_workflow(TINY, tiny)
    host.add_workflow(WAIT, wait)
    host.add_activity(ECHO, echo)
    await host.start()
    async with asyncio.timeout(30):
        while not host.ready():  # noqa: ASYNC110 - the host is ready when its own thread says so
            await asyncio.sleep(0.01)
    with address_of(backend.start()) as options:
        client = wf.DaprWorkflowClient(logger_options=options)
    yield client
    client.close()
    await host.stop()


async def speed() -> None:
    async with engine() as client:

        def run_one() -> None:
            instance_id = client.schedule_new_workflow("bench_tiny", input={"value": 1})
            state = client.wait_for_workflow_completion(instance_id, timeout_in_seconds=30)
            assert state.runtime_status == wf.WorkflowStatus.COMPLETED

        report(await asyncio.to_thread(measure, run_one))


async def memory() -> None:
    import budcluster.server  # noqa: F401, PLC0415 - what the service holds anyway

    before = _rss_mb()
    async with engine() as client:
        idle = _rss_mb()

        def start_waiting() -> None:
            with ThreadPoolExecutor(CLIENTS) as pool:
                ids = list(
                    pool.map(lambda n: client.schedule_new_workflow("bench_wait", input={"value": n}), range(WAITING))
                )
                list(pool.map(lambda id_: client.wait_for_workflow_start(id_, timeout_in_seconds=60), ids))

        await asyncio.to_thread(start_waiting)
        report({"before_mb": before, "idle_mb": idle, "waiting_mb": _rss_mb()})


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


if __name__ == "__main__":
    asyncio.run(memory() if sys.argv[1:] == ["memory"] else speed())
