"""The end of deployments: what is kept, what is stuck, and what force forgets."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from budcluster.bootstrap import make_service
from budcluster.config import Settings
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import NAMESPACE, until
from tests.deployment.operator import Operator
from tests.fixtures.app import client_of, running
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
async def operator(cluster_settings: Settings, gpu_cluster: KubernetesServer) -> AsyncIterator[Operator]:
    """Somebody whose service counts what stays for eight seconds as stuck."""
    impatient = cluster_settings.deployments.model_copy(update={"removal_timeout_s": 8.0})
    service = make_service(cluster_settings.model_copy(update={"deployments": impatient}))
    async with running(service) as app, client_of(app, timeout=60) as client:
        user = Onboarder(client)
        yield Operator(user, gpu_cluster, await user.onboarded(gpu_cluster, gpu_sharing="none"))


def hold_pods(operator: Operator, *, held: bool) -> None:
    """Let a finalizer keep pods from going, as a lost node does."""
    store = operator.server.cluster.store
    for pod in operator.server.call(lambda: store.list("Pod", NAMESPACE)):
        metadata = {"finalizers": ["example.com/stuck"]} if held else {"finalizers": []}
        name = pod["metadata"]["name"]
        operator.server.call(
            lambda name=name, metadata=metadata: store.update(
                "Pod", NAMESPACE, name, lambda obj: obj["metadata"].update(metadata)
            )
        )


async def test_a_cache_is_kept_when_asked_for_and_stuck_things_are_named_until_forced(operator: Operator) -> None:
    kept = await operator.deployed("kept", cache={"mode": "pvc", "access_mode": "ReadWriteMany"})
    assert (await operator.done("DELETE", f"/deployments/{kept}?keep_cache=true"))["status"] == "SUCCEEDED"
    assert await operator.labelled(kept) == ["PersistentVolumeClaim"]

    stuck = await operator.deployed("stuck")
    await asyncio.to_thread(hold_pods, operator, held=True)
    failed = await operator.done("DELETE", f"/deployments/{stuck}")
    assert failed["error"]["type"] == "things-left", failed
    assert "pods/bud-stuck" in failed["error"]["detail"]
    assert "force=true" in failed["error"]["next_step"]
    shown = await until(lambda: operator.show(stuck), lambda shown: shown["replicas"]["ready"] == 0)
    assert (shown["status"], shown["servable"], shown["endpoints"]) == ("FAILED", False, [])
    assert shown["error"]["type"] == "/problems/things-left"
    assert (shown["error"]["detail"], shown["error"]["operation_id"]) == (failed["error"]["detail"], failed["id"])

    plain = (await operator.user.client.delete(f"/deployments/{stuck}")).json()["operation_id"]
    forced = (await operator.user.client.delete(f"/deployments/{stuck}?force=true")).json()["operation_id"]
    assert forced == plain
    ended = await operator.user.ended(forced)
    assert ended["status"] == "SUCCEEDED", ended
    assert "pods/bud-stuck" in ended["steps"][-1]["detail"]
    assert (await operator.user.client.get(f"/deployments/{stuck}")).status_code == 404

    await asyncio.to_thread(hold_pods, operator, held=False)
    await until(lambda: operator.labelled(stuck), lambda left: left == [])


async def test_a_deletion_that_is_refused_leaves_a_deployment_that_serves_and_force_forgets_a_lost_one(
    operator: Operator,
) -> None:
    lost = await operator.deployed("lost")
    with operator.server.fault(Fault("forbidden", verbs=("list",), resources=("deployments",))):
        refused = await operator.done("DELETE", f"/deployments/{lost}")
    assert refused["status"] == "FAILED"
    shown = await operator.show(lost)
    assert (shown["status"], shown["servable"], shown["replicas"]["ready"]) == ("RUNNING", True, 1)
    assert (len(shown["endpoints"]), shown["error"]["operation_id"]) == (1, refused["id"])
    assert shown["error"]["detail"].startswith("The deletion failed before it removed anything: ")

    await asyncio.to_thread(operator.server.be_gone, 120.0)
    operation = await operator.done("DELETE", f"/deployments/{lost}?force=true")
    assert operation["status"] == "SUCCEEDED", operation
    assert all("bud-lost" in step["detail"] for step in operation["steps"])
