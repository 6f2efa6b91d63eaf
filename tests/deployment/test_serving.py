"""Deployments from request to end on the simulated cluster, with real Helm and real Ansible."""

import pytest

from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.models import LLAMA_8B
from tests.deployment.operator import Operator
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
async def operator(onboarder: Onboarder, gpu_cluster: KubernetesServer) -> Operator:
    """Somebody with a READY cluster of nine GPUs."""
    return Operator(onboarder, gpu_cluster, await onboarder.onboarded(gpu_cluster))


async def test_a_model_is_served_scaled_parked_changed_rolled_back_and_deleted(operator: Operator) -> None:
    chat = await operator.deployed("chat", cache={"mode": "pvc", "access_mode": "ReadWriteMany"})
    path = f"/deployments/{chat}"
    shown = await operator.show(chat)
    assert (shown["status"], shown["servable"], shown["error"]) == ("RUNNING", True, None)
    assert shown["endpoints"][0]["url"].endswith("svc.cluster.local/v1")

    for replicas, status in ((2, "RUNNING"), (0, "PARKED"), (1, "RUNNING")):
        assert (await operator.done("POST", f"{path}/scale", {"replicas": replicas}))["status"] == "SUCCEEDED"
        shown = await operator.show(chat)
        assert (shown["status"], shown["replicas"]) == (status, {"desired": replicas, "ready": replicas})

    client, stale = operator.user.client, {"If-Match": '"1"'}
    for method, where, body in (
        ("PATCH", path, {"config": {"max_num_seqs": 64}}),
        ("POST", f"{path}/scale", {"replicas": 2}),
        ("POST", f"{path}/rollback", {}),
    ):
        assert (await client.request(method, where, json=body, headers=stale)).status_code == 412

    changed = await operator.done("PATCH", path, {"config": {"max_num_seqs": 64}})
    assert changed["status"] == "SUCCEEDED", changed
    back = await operator.done("POST", f"{path}/rollback", {"revision": 1})
    assert back["status"] == "SUCCEEDED", back
    revisions = (await operator.user.client.get(f"{path}/revisions")).json()["items"]
    assert [(one["number"], one["is_current"]) for one in revisions] == [(3, True), (2, False), (1, False)]
    assert "max_num_seqs" not in (await operator.show(chat))["config"]

    assert (await operator.done("DELETE", path))["status"] == "SUCCEEDED"
    assert (await operator.user.client.get(path)).status_code == 404
    assert await operator.labelled(chat) == []


async def test_a_revision_that_does_not_serve_is_taken_back_by_itself(operator: Operator) -> None:
    chat = await operator.deployed("chat")
    bad = {"config": {"image": "vllm/vllm-openai:v9.9.9-missing"}}
    operation = await operator.done("PATCH", f"/deployments/{chat}", bad)
    assert (operation["status"], operation["error"]["type"]) == ("FAILED", "runtime-failed")
    shown = await operator.show(chat)
    assert (shown["status"], shown["revision"], shown["servable"]) == ("RUNNING", 1, True)
    assert "no such image" in shown["error"]["detail"]


async def test_a_start_that_cannot_succeed_ends_early_with_its_cause_and_leaves_nothing(operator: Operator) -> None:
    begun = await operator.begin("gated", model="meta-llama/Llama-3.1-8B-Instruct", model_config=LLAMA_8B)
    operation = await operator.user.ended(begun["operation_id"])
    assert operation["status"] == "FAILED", operation
    shown = await operator.show(begun["id"])
    assert (shown["status"], shown["diagnosis"]["type"]) == ("FAILED", "model-gated")
    assert shown["error"]["next_step"].startswith("Accept the model's terms")
    assert await operator.labelled(begun["id"]) == []


async def test_deleting_while_deploying_leaves_nothing(operator: Operator) -> None:
    begun = await operator.begin("brief")
    path = f"/deployments/{begun['id']}"
    async with operator.no_new_pods():
        assert await operator.user.is_running(begun["operation_id"], "wait_until_serving")
        assert (await operator.user.client.post(f"{path}/scale", json={"replicas": 2})).status_code == 409
        assert (await operator.done("DELETE", path))["status"] == "SUCCEEDED"
    assert (await operator.user.ended(begun["operation_id"]))["status"] == "CANCELLED"
    assert await operator.labelled(begun["id"]) == []
