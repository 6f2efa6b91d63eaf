"""Which run's log is kept, whatever the container does while it is read."""

from typing import Any

import trustme

from budcluster.deployment.logs.attempts import ended_runs, last_lines
from budcluster.kube.client import ClusterClient
from tests.kube.api_server import Answer, ApiServer, Asked, serving


def pod(*, restarts: int) -> dict[str, Any]:
    """Its container has crashed so often; after the last time it has not started again."""
    ended = {"terminated": {"exitCode": 1}}
    status = {"name": "runtime", "restartCount": restarts, "state": ended if restarts == 0 else {"running": {}}}
    return {"metadata": {"name": "chat-1", "uid": "u"}, "status": {"containerStatuses": [status]}}


async def test_a_container_that_restarts_while_its_log_is_read_gives_that_of_the_run_that_failed() -> None:
    async with serving(ApiServer(trustme.CA())) as server, ClusterClient(server.config()) as client:
        restarts = 0

        def answer(asked: Asked) -> Answer:
            nonlocal restarts
            if not asked.path.endswith("/log"):
                return Answer(pod(restarts=restarts))
            restarts = 1  # before kubelet looks for the log
            return Answer(chunks=[b"CUDA error\n" if asked.params.get("previous") == "true" else b"starting\n"])

        server.answer = answer
        [ended] = ended_runs(pod(restarts=0))
        assert await last_lines(client, "budcluster-models", ended) == ["CUDA error"]
