"""One replica as a process of its own: an embedded sidecar, a worker, and activities that keep a journal.

Started with the database, the journal's folder and limits in the environment; says "ready" once its worker is
connected, and ends politely at SIGTERM.
"""

import asyncio
import json
import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import dapr.ext.workflow as wf
import structlog

from budcluster.durable.sidecar.limits import Limits
from budcluster.durable.sidecar.server import EmbeddedSidecar

DSN = os.environ["REPLICA_DSN"]
FOLDER = Path(os.environ["REPLICA_FOLDER"])
OPTIONS: dict[str, Any] = json.loads(os.environ.get("REPLICA_OPTIONS", "{}"))


def note(*facts: object) -> None:
    """Append a line to the journal; one write, so that lines of several processes do not mix."""
    line = " ".join(str(fact) for fact in (*facts, os.getpid())) + "\n"
    descriptor = os.open(FOLDER / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


async def step(ctx: wf.WorkflowActivityContext, number: int) -> int:
    """One step; waits while a file `hold-<number>` exists. Its effect is guarded by the execution's id."""
    note("begin", ctx.workflow_id, number)
    while (FOLDER / f"hold-{number}").exists():  # noqa: ASYNC110 - the test process lets go by removing it
        await asyncio.sleep(0.01)
    if OPTIONS.get("effects"):
        connection = await asyncpg.connect(DSN)
        key = ctx.get_inner_context().task_execution_id
        tag = await connection.execute("insert into effects values ($1) on conflict do nothing", key)
        note("effect" if tag == "INSERT 0 1" else "refused", ctx.workflow_id, number)
        await connection.close()
    note("end", ctx.workflow_id, number)
    return number


async def die(ctx: wf.WorkflowActivityContext, _: Any) -> None:
    note("begin", ctx.workflow_id, "die")
    os.kill(os.getpid(), signal.SIGKILL)


def steps(ctx: wf.DaprWorkflowContext, count: int):
    done = []
    for number in range(1, count + 1):
        result = yield ctx.call_activity("step", input=number)
        done.append(result)
    return done


def timer_then_step(ctx: wf.DaprWorkflowContext, seconds: float):
    yield ctx.create_timer(timedelta(seconds=seconds))
    return (yield ctx.call_activity("step", input=1))


def waits(ctx: wf.DaprWorkflowContext, _: Any):
    alarm = ctx.create_timer(timedelta(hours=1))
    event = ctx.wait_for_external_event("go")
    winner = yield wf.when_any([alarm, event])
    return winner is event


def deadly(ctx: wf.DaprWorkflowContext, _: Any):
    yield ctx.call_activity("die")


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    limits = Limits(
        **{
            name: timedelta(seconds=value) if name == "silence" else value
            for name, value in OPTIONS.get("limits", {}).items()
        }
    )
    sidecar = EmbeddedSidecar(DSN, token="t", limits=limits)
    sidecar.start()
    os.environ.update(DAPR_GRPC_ENDPOINT=sidecar.endpoint, DAPR_API_TOKEN="t")
    runtime = wf.WorkflowRuntime(maximum_thread_pool_workers=16)
    for workflow in (steps, timer_then_step, waits, deadly):
        runtime.register_workflow(workflow)
    for activity in (step, die):
        runtime.register_activity(activity)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    runtime.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    ended.wait()
    sidecar.drain()
    runtime.shutdown()
    sidecar.stop()


if __name__ == "__main__":
    main()
