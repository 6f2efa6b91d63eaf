"""Our durable layer in one process: SDK worker, embedded sidecar, PostgreSQL with fsync. Or a live sidecar.

`DSN` names the database; with `DAPR_GRPC_ENDPOINT` a live Dapr sidecar is measured instead. `memory` as the argument
measures what 1,000 waiting workflows add to the service.
"""

import os
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dapr.ext.workflow as wf

from benchmarks.subjects.tiny import measure, report
from budcluster.durable.backend import BackendKind, choose_backend
from budcluster.durable.sdk import address_of

WAITING = 1_000


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


def memory() -> None:
    import budcluster.server  # noqa: F401, PLC0415 - what the service holds anyway

    before = _rss_mb()
    backend = choose_backend(BackendKind.AUTO, os.environ, dsn=os.environ["DSN"])
    with address_of(backend.start()) as options:
        runtime = wf.WorkflowRuntime(logger_options=options)
        client = wf.DaprWorkflowClient(logger_options=options)

    @runtime.workflow(name="bench_wait")
    def wait(ctx: wf.DaprWorkflowContext, _: int) -> Generator[Any, Any, int]:
        return (yield ctx.wait_for_external_event("go"))

    runtime.start()
    runtime.wait_for_worker_ready(30)
    idle = _rss_mb()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: client.schedule_new_workflow(wait, input=n), range(WAITING)))
    report({"before_mb": before, "idle_mb": idle, "waiting_mb": _rss_mb()})
    client.close()
    runtime.shutdown()
    backend.stop(grace_s=1)


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


if __name__ == "__main__":
    memory() if sys.argv[1:] == ["memory"] else speed()
