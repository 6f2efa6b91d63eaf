"""Changes that are taken back, and operations that are retried, when other things happen meanwhile."""

import asyncio

import pytest

from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import NAMESPACE, until
from tests.deployment.operator import Operator
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

USUAL, LARGER = "Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"
MISSING = {"config": {"image": "vllm/vllm-openai:v9.9.9-missing"}}
NO_PROMPTS = Fault("error", resources=("services/proxy",))


@pytest.fixture
async def operator(onboarder: Onboarder, gpu_cluster: KubernetesServer) -> Operator:
    """Somebody with a READY cluster of nine whole GPUs."""
    return Operator(onboarder, gpu_cluster, await onboarder.onboarded(gpu_cluster, gpu_sharing="none"))


async def test_a_delete_ends_a_change_without_bringing_back_what_ran(operator: Operator) -> None:
    chat = await operator.deployed("chat")
    path = f"/deployments/{chat}"
    change = (await operator.user.client.patch(path, json=MISSING)).json()["operation_id"]
    assert await operator.user.is_running(change, "wait_until_serving")
    revisions = len(await operator.releases())
    delete = (await operator.user.client.delete(path)).json()["operation_id"]
    assert (await operator.user.ended(change))["status"] == "CANCELLED"
    lines = (await operator.user.client.get(f"/operations/{change}/logs")).json()["items"]
    assert "what ran before is not brought back" in lines[-1]["text"]
    assert revisions == 2
    assert (await operator.user.ended(delete))["status"] == "SUCCEEDED"
    assert await operator.labelled(chat) == []


async def test_a_retry_asks_for_room_again_and_only_the_newest_is_retried(operator: Operator) -> None:
    await operator.gate(LARGER)
    begun = await operator.begin("first", model=LARGER, tensor_parallel_size=8)
    client, retry = operator.user.client, f"/operations/{begun['operation_id']}/retry"
    assert (await operator.user.ended(begun["operation_id"]))["error"]["type"] == "runtime-failed"
    await until(lambda: operator.fits(8), bool)
    other = await operator.begin("second", tensor_parallel_size=8)
    refused = await client.post(retry)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/no-capacity"), refused.text

    assert (await operator.done("DELETE", f"/deployments/{other['id']}"))["status"] == "SUCCEEDED"
    await operator.gate(LARGER, gated=False)

    async def retried() -> int:
        return (await client.post(retry)).status_code

    await until(retried, lambda status: status == 202)
    assert (await operator.user.ended(begun["operation_id"]))["status"] == "SUCCEEDED"

    path = f"/deployments/{begun['id']}"
    older = await operator.done("PATCH", path, MISSING)
    newer = await operator.done("PATCH", path, MISSING)
    assert {older["status"], newer["status"]} == {"FAILED"}
    refused = await client.post(f"/operations/{older['id']}/retry")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/operation-not-retryable")
    assert (await client.post(f"/operations/{newer['id']}/retry")).status_code == 202
    again = await operator.user.ended(newer["id"])
    assert (again["status"], again["attempt"]) == ("FAILED", 2)
    await until(lambda: operator.show(begun["id"]), lambda shown: shown["status"] == "RUNNING")


async def test_a_change_cures_a_crash_loop_and_is_taken_back_when_it_answers_no_prompt(operator: Operator) -> None:
    chat = await operator.deployed("chat")
    path, server = f"/deployments/{chat}", operator.server
    with server.fault(NO_PROMPTS):
        failed = await operator.done("PATCH", path, {"config": {"max_num_seqs": 64}})
    assert failed["error"]["type"] == "smoke-failed", failed
    shown = await until(lambda: operator.show(chat), lambda shown: shown["status"] == "RUNNING")
    assert shown["revision"] == 1

    await _crash_for_ever(operator, USUAL)
    await until(lambda: operator.show(chat), lambda shown: (shown["diagnosis"] or {}).get("type") == "model-gated")
    await operator.gate(USUAL, gated=False)
    cured = await operator.done("PATCH", path, {"config": {"max_num_seqs": 32}})
    assert cured["status"] == "SUCCEEDED", cured


async def _crash_for_ever(operator: Operator, model: str) -> None:
    """Let every copy end, and not start again."""
    await operator.gate(model)
    cluster = operator.server.cluster

    def crash() -> None:
        for pod in cluster.store.list("Pod", NAMESPACE):
            cluster.simulation.inject("pod_crash", pod=pod["metadata"]["name"], namespace=NAMESPACE)

    await asyncio.to_thread(operator.server.call, crash)
