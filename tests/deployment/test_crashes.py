"""Deployments come up, change and go although the service is killed in every step: kill -9, a real process."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import until
from tests.deployment.operator import Operator
from tests.fixtures.cluster import Onboarder
from tests.fixtures.service_process import ServiceProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEPLOY = ("check_plan", "prepare_namespace", "write_secrets", "install_release", "wait_until_serving", "smoke_test")
CHANGE = DEPLOY[2:]
DELETE = ("remove_release", "verify_removal")
# The shortest steps may be over before anybody can look.
LONG = {"install_release", "wait_until_serving"}


class Unlucky(Operator):
    """An operator whose service is killed in every step of what is asked for."""

    def __init__(self, user: Onboarder, server: KubernetesServer, cluster_id: str, service: ServiceProcess) -> None:
        super().__init__(user, server, cluster_id)
        self.service = service

    async def survived(self, method: str, path: str, steps: tuple[str, ...], body: Any = None) -> set[str]:
        """Ask, kill in every step, and see it succeed; the steps that were cut off."""
        answer = await self.user.client.request(method, path, json=body)
        assert answer.status_code == 202, answer.text
        return await self.killed_in(answer.json()["operation_id"], steps)

    async def killed_in(self, operation_id: str, steps: tuple[str, ...]) -> set[str]:
        """Kill in every step, and see it succeed; the steps that were cut off."""
        waits = steps.index("wait_until_serving") + 1 if "wait_until_serving" in steps else 0
        async with self.no_new_pods():  # or the copies may serve before anybody can look
            killed = await self.user.killed_in_each(self.service, operation_id, steps[:waits])
        killed |= await self.user.killed_in_each(self.service, operation_id, steps[waits:])
        operation = await self.user.ended(operation_id)
        assert operation["status"] == "SUCCEEDED", operation
        await self.until_open()
        return killed

    async def killed_while_undoing(self, operation_id: str, step: str) -> dict[str, Any]:
        """Kill the service once it takes the step back; the operation at its end."""
        await until(lambda: self.is_taken_back(operation_id, step), bool, deadline_s=120)
        await self.service.kill()
        await self.service.start()
        return await self.user.ended(operation_id)


@pytest.fixture
async def operator(mortal_service: ServiceProcess, gpu_cluster: KubernetesServer) -> AsyncIterator[Unlucky]:
    """Somebody with a READY cluster of nine whole GPUs."""
    async with httpx.AsyncClient(base_url=mortal_service.url, timeout=60) as client:
        user = Onboarder(client)
        cluster_id = await user.onboarded(gpu_cluster, gpu_sharing="none")
        yield Unlucky(user, gpu_cluster, cluster_id, mortal_service)


async def test_a_deployment_survives_a_kill_in_every_single_step(operator: Unlucky) -> None:
    begun = await operator.begin("chat")
    killed = await operator.killed_in(begun["operation_id"], DEPLOY)
    shown = await operator.show(begun["id"])
    assert (shown["status"], shown["replicas"]) == ("RUNNING", {"desired": 1, "ready": 1})
    assert await operator.releases() == [("1", "deployed")]
    kinds = await operator.labelled(begun["id"])
    assert (kinds.count("Deployment"), kinds.count("Pod"), kinds.count("Service")) == (1, 1, 1)
    assert {"prepare_namespace", *LONG} <= killed


async def test_scaling_changing_going_back_and_deleting_survive_a_kill_in_every_single_step(operator: Unlucky) -> None:
    chat = await operator.deployed("chat")
    path = f"/deployments/{chat}"

    assert await operator.survived("POST", f"{path}/scale", CHANGE, {"replicas": 2}) >= LONG
    shown = await operator.show(chat)
    assert (shown["status"], shown["replicas"]) == ("RUNNING", {"desired": 2, "ready": 2})

    assert await operator.survived("PATCH", path, CHANGE, {"config": {"max_num_seqs": 64}}) >= LONG
    assert await operator.survived("POST", f"{path}/rollback", CHANGE, {}) >= LONG
    shown = await operator.show(chat)
    assert (shown["status"], shown["revision"], shown["replicas"]["ready"]) == ("RUNNING", 3, 2)
    assert "max_num_seqs" not in shown["config"]
    # One Helm revision for each change, however often it was begun.
    assert [status for _, status in await operator.releases()] == ["superseded"] * 3 + ["deployed"]
    assert (await operator.labelled(chat)).count("Pod") == 2

    assert await operator.survived("DELETE", path, DELETE)
    assert (await operator.user.client.get(path)).status_code == 404
    assert (await operator.releases(), await operator.labelled(chat)) == ([], [])


async def test_a_change_that_fails_is_taken_back_although_the_service_is_killed_meanwhile(operator: Unlucky) -> None:
    chat = await operator.deployed("chat")
    bad = {"config": {"image": "vllm/vllm-openai:v9.9.9-missing"}}
    begun = (await operator.user.client.patch(f"/deployments/{chat}", json=bad)).json()
    operation = await operator.killed_while_undoing(begun["operation_id"], "install_release")
    assert (operation["status"], operation["error"]["type"]) == ("FAILED", "runtime-failed")
    shown = await operator.show(chat)
    assert (shown["status"], shown["revision"], shown["servable"]) == ("RUNNING", 1, True)
    assert (await operator.releases())[-1][1] == "deployed"
