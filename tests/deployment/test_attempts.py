"""Which run's log is kept, whatever the container does while it is read."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme

from budcluster.deployment.logs.attempts import ended_runs, last_lines
from budcluster.kube.client import ClusterClient
from tests.kube.api_server import Answer, ApiServer, Asked, serving, status

ENDED = {"exitCode": 1}
CRASHED: dict[str, Any] = {"state": {"terminated": ENDED}}
RUNNING: dict[str, Any] = {"state": {"running": {}}, "lastState": {"terminated": ENDED}}
WAITING: dict[str, Any] = {"state": {"waiting": {}}, "lastState": {"terminated": ENDED}}


def pod(said: dict[str, Any], *, restarts: int) -> dict[str, Any]:
    """Its container has crashed and stands like this."""
    container = {"name": "runtime", "restartCount": restarts, **said}
    return {"metadata": {"name": "chat-1", "uid": "u"}, "status": {"containerStatuses": [container]}}


@dataclass
class Kubelet:
    """Has a log of the present run and one of the previous run; the pod stands as `then` once one was asked for."""

    client: ClusterClient
    then: Answer = field(default_factory=Answer)

    def answer(self, asked: Asked) -> Answer:
        if not asked.path.endswith("/log"):
            return self.then
        return Answer(chunks=[b"previous\n" if asked.params.get("previous") == "true" else b"present\n"])

    async def log_of(self, seen: dict[str, Any]) -> list[str]:
        [ended] = ended_runs(seen)
        return await last_lines(self.client, "budcluster-models", ended)


@pytest.fixture
async def kubelet() -> AsyncIterator[Kubelet]:
    async with serving(ApiServer(trustme.CA())) as server, ClusterClient(server.config()) as client:
        kubelet = Kubelet(client)
        server.answer = kubelet.answer
        yield kubelet


@pytest.mark.parametrize(
    ("then", "kept"),
    [
        (pod(CRASHED, restarts=0), ["present"]),
        (pod(WAITING, restarts=0), ["present"]),
        (pod(RUNNING, restarts=1), ["previous"]),
        (pod(WAITING, restarts=1), []),
        (pod(RUNNING, restarts=2), []),
    ],
)
async def test_a_container_that_restarts_while_its_log_is_read_gives_that_of_the_run_that_failed_or_none(
    kubelet: Kubelet, then: dict[str, Any], kept: list[str]
) -> None:
    kubelet.then = Answer(then)
    assert await kubelet.log_of(pod(CRASHED, restarts=0)) == kept


@pytest.mark.parametrize(
    ("then", "kept"),
    [
        (pod(WAITING, restarts=3), ["previous"]),
        (pod(RUNNING, restarts=4), ["previous"]),
        (pod(WAITING, restarts=4), []),
        (pod(RUNNING, restarts=5), []),
    ],
)
async def test_a_previous_log_is_kept_only_while_it_is_that_of_the_run_that_failed(
    kubelet: Kubelet, then: dict[str, Any], kept: list[str]
) -> None:
    kubelet.then = Answer(then)
    assert await kubelet.log_of(pod(WAITING, restarts=3)) == kept


@pytest.mark.parametrize("refusal", [status(404, "NotFound"), status(403, "Forbidden"), status(401, "Unauthorized")])
async def test_lines_that_were_read_stay_though_nobody_can_say_whether_the_container_restarted(
    kubelet: Kubelet, refusal: Answer
) -> None:
    kubelet.then = refusal
    assert await kubelet.log_of(pod(CRASHED, restarts=0)) == ["present"]
