"""Misfortune while add-ons are installed: a hiccup is waited out, a half-made release repaired, what fails degrades."""

import asyncio
import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from budcluster.config import AddonSettings
from budcluster.hardware import prometheus
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def small_cluster() -> Iterator[KubernetesServer]:
    """One machine without GPUs."""
    with KubernetesServer(Options(nodes="cpu-amx:1", clock_factor=60)) as server:
        yield server


def leave_pending(server: KubernetesServer, release: str, namespace: str) -> None:
    """A first install by this service whose Helm was killed: nothing but its record, as Helm writes it."""
    chart = {"metadata": {"name": "kube-prometheus-stack", "version": "88.5.3", "apiVersion": "v2"}, "templates": []}
    info = {"status": "pending-install", "first_deployed": "2026-11-23T10:00:00Z", "description": "Initial install"}
    record = {"name": release, "namespace": namespace, "version": 1, "info": info, "chart": chart, "config": {}}
    content = base64.b64encode(gzip.compress(json.dumps({**record, "manifest": "", "hooks": []}).encode()))
    labels = {
        "name": release, "owner": "helm", "status": "pending-install", "version": "1", "budcluster.io/managed": "true",
    }  # fmt: skip
    server.call(
        lambda: server.cluster.store.create({
            "apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
            "metadata": {"name": f"sh.helm.release.v1.{release}.v1", "namespace": namespace, "labels": labels},
            "data": {"release": base64.b64encode(content).decode()},
        })
    )  # fmt: skip


async def test_a_release_left_pending_is_repaired_and_a_hiccup_of_the_api_server_costs_no_add_on(
    onboarder: Onboarder, small_cluster: KubernetesServer
) -> None:
    addon = prometheus.addon(AddonSettings())
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": addon.namespace}}
    small_cluster.call(lambda: small_cluster.cluster.store.create(namespace))
    leave_pending(small_cluster, addon.release, addon.namespace)
    cluster_id = await onboarder.register()
    operation_id = await onboarder.begin(cluster_id, small_cluster)
    assert await onboarder.is_running(operation_id, "install_nfd")
    small_cluster.call(lambda: small_cluster.cluster.faults.add(Fault("error", resources=("namespaces",), times=2)))
    operation = await onboarder.ended(operation_id)
    assert operation["status"] == "SUCCEEDED", operation
    addons = (await onboarder.client.get(f"/clusters/{cluster_id}/addons")).json()["items"]
    assert {one["name"]: one["state"] for one in addons} == {"prometheus": "READY", "nfd": "READY"}, addons
    suffered = small_cluster.call(lambda: small_cluster.cluster.faults.listed()[0]["suffered"])
    assert suffered == 2


async def test_a_discovery_that_never_runs_degrades_and_the_gap_is_named(
    onboarder: Onboarder, small_cluster: KubernetesServer
) -> None:
    simulation: Any = small_cluster.cluster.simulation
    small_cluster.call(lambda: simulation.inject("image_missing", image="*node-feature-discovery*"))
    cluster_id = await onboarder.register()
    operation = await onboarder.ended(await onboarder.begin(cluster_id, small_cluster))
    assert operation["status"] == "SUCCEEDED", operation
    details = {step["name"]: step["detail"] for step in operation["steps"]}
    assert "there is no such image" in details["install_nfd"]
    assert "0 of 1 nodes were detected" in details["detect_nodes"]
    assert (await onboarder.cluster(cluster_id))["status"] == "READY"
    answer = await onboarder.client.get(f"/clusters/{cluster_id}/nodes")
    while not answer.json().get("items"):
        await asyncio.sleep(0.1)
        answer = await onboarder.client.get(f"/clusters/{cluster_id}/nodes")
    assert any("Node Feature Discovery has not finished" in gap for gap in answer.json()["items"][0]["gaps"])


async def test_a_cluster_without_nodes_is_taken_into_service_at_once(onboarder: Onboarder) -> None:
    with KubernetesServer(Options(nodes="cpu-amx:1", clock_factor=60)) as server:
        server.call(lambda: server.cluster.store.delete("Node", None, "cpu-amx-1"))
        cluster_id = await onboarder.register()
        operation = await onboarder.ended(await onboarder.begin(cluster_id, server))
    assert operation["status"] == "SUCCEEDED", operation
    details = {step["name"]: step["detail"] for step in operation["steps"]}
    assert "no node of the cluster is ready" in details["install_prometheus"]
    assert "Node Feature Discovery 0.19.0 is installed" in details["install_nfd"]
