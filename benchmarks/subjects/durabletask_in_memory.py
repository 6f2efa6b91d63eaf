"""Microsoft's durabletask with its in-memory backend: everything in one process, nothing survives it."""

import logging
from socket import create_server

from durabletask.client import TaskHubGrpcClient
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from durabletask.worker import TaskHubGrpcWorker
from tiny import measure, report


def echo(_, value):
    return value


def tiny_workflow(ctx, value):
    return (yield ctx.call_activity(echo, input=value))


def main():
    logger = logging.getLogger("silent")
    logger.setLevel(logging.CRITICAL)
    quiet = {"logger": logger}
    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    backend = InMemoryOrchestrationBackend(port=port)
    address = backend.start()
    worker = TaskHubGrpcWorker(host_address=address, **quiet)
    worker.add_orchestrator(tiny_workflow)
    worker.add_activity(echo)
    worker.start()
    client = TaskHubGrpcClient(host_address=address, **quiet)

    def run_one():
        instance_id = client.schedule_new_orchestration(tiny_workflow, input=1)
        state = client.wait_for_orchestration_completion(instance_id, timeout=30)
        assert state.runtime_status.name == "COMPLETED"

    report(measure(run_one))
    worker.stop()
    backend.stop()


if __name__ == "__main__":
    main()
