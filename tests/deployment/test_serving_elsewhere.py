"""Deployments through an API server that goes away, and with the runtimes other than vLLM."""

import asyncio
from typing import Any

import pytest

from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import until
from tests.deployment.operator import Operator
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]


@pytest.fixture
async def operator(onboarder: Onboarder, gpu_cluster: KubernetesServer) -> Operator:
    """Somebody with a READY cluster whose GPUs are given out whole."""
    return Operator(onboarder, gpu_cluster, await onboarder.onboarded(gpu_cluster, gpu_sharing="none"))


async def test_an_api_server_that_is_gone_for_a_while_only_delays(operator: Operator) -> None:
    begun = await operator.begin("patient")
    async with operator.no_new_pods():
        assert await operator.user.is_running(begun["operation_id"], "wait_until_serving")
        await asyncio.to_thread(operator.server.be_gone, 15.0)
    operation = await operator.user.ended(begun["operation_id"])
    assert operation["status"] == "SUCCEEDED", operation
    shown = await operator.show(begun["id"])
    assert (shown["status"], shown["error"]) == ("RUNNING", None)
    await until(lambda: operator.show(begun["id"]), lambda shown: shown["replicas"] == {"desired": 1, "ready": 1})
    await operator.until_open()

    path = f"/deployments/{begun['id']}"
    # The prompt's answer takes its time, so that the server is gone before it comes.
    with operator.server.fault(Fault("latency", resources=("services/proxy",), seconds=3, times=1)):
        await _gone_in(operator, "smoke_test", "PATCH", path, {"config": {"max_num_seqs": 64}})
    await _gone_in(operator, "install_release", "PATCH", path, {"config": {"max_num_seqs": 32}})
    missing = {"config": {"image": "vllm/vllm-openai:v9.9.9-missing"}}
    failed = await _gone_in(operator, "install_release", "PATCH", path, missing, undoing=True)
    assert (failed["status"], failed["error"]["type"], failed["result"]["left"]) == ("FAILED", "runtime-failed", [])
    await until(lambda: operator.show(begun["id"]), lambda shown: shown["status"] == "RUNNING")
    await _gone_in(operator, "remove_release", "DELETE", path, None)
    assert await operator.labelled(begun["id"]) == []


async def _gone_in(
    operator: Operator, step: str, method: str, path: str, body: Any, *, undoing: bool = False
) -> dict[str, Any]:
    """Ask for work, and let the API server be gone for some seconds once it is in that step; the operation's end."""
    answer = await operator.user.client.request(method, path, json=body)
    operation_id = answer.json()["operation_id"]
    if undoing:
        await until(lambda: operator.is_taken_back(operation_id, step), bool, deadline_s=120)
    else:
        await operator.user.is_running(operation_id, step)
    await asyncio.to_thread(operator.server.be_gone, 6.0)
    ended = await operator.user.ended(operation_id)
    assert undoing or ended["status"] == "SUCCEEDED", ended
    return ended


async def test_sglang_and_tensorrt_llm_serve_scale_and_go(operator: Operator) -> None:
    for runtime in ("sglang", "tensorrt_llm"):
        deployed = await operator.deployed(runtime.replace("_", "-"), runtime=runtime)
        shown = await operator.show(deployed)
        assert (shown["status"], shown["runtime"], shown["servable"]) == ("RUNNING", runtime.upper(), True)
        path = f"/deployments/{deployed}"
        scaled = await operator.done("POST", f"{path}/scale", {"replicas": 2})
        assert scaled["status"] == "SUCCEEDED", scaled
        assert (await operator.show(deployed))["replicas"] == {"desired": 2, "ready": 2}
        assert (await operator.done("DELETE", path))["status"] == "SUCCEEDED"
        assert await operator.labelled(deployed) == []


async def test_every_runtime_serves_on_a_share_and_on_two_whole_gpus_of_hami_nodes(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    operator = Operator(onboarder, gpu_cluster, await onboarder.onboarded(gpu_cluster))
    for runtime in ("vllm", "sglang", "tensorrt_llm"):
        share = await operator.deployed("share", runtime=runtime, gpu_share={"memory_mib": 16_384})
        pair = await operator.deployed("pair", runtime=runtime, tensor_parallel_size=2)
        gpus = (await operator.user.client.get(f"/clusters/{operator.cluster_id}/gpus")).json()["items"]
        assert sorted(use["memory_mib"] for one in gpus for use in one["gpu"]["used_by"] or ()) == [
            16_384,
            81_559,
            81_559,
        ]
        for deployed in (share, pair):
            assert (await operator.done("DELETE", f"/deployments/{deployed}"))["status"] == "SUCCEEDED"
