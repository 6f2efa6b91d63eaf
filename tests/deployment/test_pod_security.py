"""A cluster that is strict about pods: add-ons get in, models where they may, and who is refused learns why at once."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import NAMESPACE
from tests.deployment.operator import Operator
from tests.fixtures.cluster import Onboarder
from tests.fixtures.manifests import dropped_fields

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

ENFORCE = "pod-security.kubernetes.io/enforce"
PROMISED_S = 100
"""Enough for a busy machine; one that waited would wait for the whole startup budget, which is longer."""


@pytest.fixture
def strict_cluster() -> Iterator[KubernetesServer]:
    with KubernetesServer(Options(nodes="h100x8:1,cpu-amx:1", clock_factor=60, pod_security="baseline")) as server:
        yield server


def levels(server: KubernetesServer) -> dict[str, str]:
    """What namespaces enforce by their labels."""
    namespaces = server.call(lambda: server.cluster.store.list("Namespace"))
    labels = {one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in namespaces}
    return {name: its[ENFORCE] for name, its in labels.items() if ENFORCE in its}


async def enforce(server: KubernetesServer, level: str) -> None:
    """As its administrator, label the namespace of models, which is made where it is missing."""

    def label() -> None:
        store = server.cluster.store
        if store.find("Namespace", None, NAMESPACE) is None:
            store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        store.update("Namespace", None, NAMESPACE, lambda one: one["metadata"].update(labels={ENFORCE: level}))

    await asyncio.to_thread(server.call, label)


async def test_a_strict_cluster_is_onboarded_and_refuses_models_with_the_field_and_the_cure(
    onboarder: Onboarder, strict_cluster: KubernetesServer
) -> None:
    operator = Operator(onboarder, strict_cluster, await onboarder.onboarded(strict_cluster))
    assert (await onboarder.cluster(operator.cluster_id))["gpu_count"] == 8
    ours = ("gpu-operator", "monitoring", "node-feature-discovery")
    assert await asyncio.to_thread(levels, strict_cluster) == dict.fromkeys(ours, "privileged")

    await enforce(strict_cluster, "restricted")
    assert (await operator.show(await operator.deployed("modest")))["servable"]

    begun, began = await operator.begin("rooted", runtime="sglang"), time.monotonic()
    failed = await onboarder.ended(begun["operation_id"])
    assert time.monotonic() - began < PROMISED_S
    assert (failed["status"], failed["error"]["type"]) == ("FAILED", "runtime-failed"), failed
    shown = await operator.show(begun["id"])
    assert "Pod Security Standard restricted" in shown["error"]["detail"]
    assert "must set securityContext.runAsNonRoot=true" in shown["error"]["detail"]
    assert f"{ENFORCE}=baseline" in shown["error"]["next_step"]

    await enforce(strict_cluster, "baseline")
    retry = await onboarder.client.post(f"/operations/{begun['operation_id']}/retry")
    assert retry.status_code == 202, retry.text
    retried = await onboarder.ended(begun["operation_id"])
    assert retried["status"] == "SUCCEEDED", retried
    assert dropped_fields(strict_cluster) == []
