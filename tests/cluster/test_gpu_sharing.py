"""Who hands out the GPUs of a real-life cluster: changes, add-ons of others, pods that run, and a HAMi that breaks."""

import asyncio
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from budcluster.config import Settings
from budcluster.hardware.hami import MARK
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import until
from tests.fixtures.cluster import CHARTS, Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

GPU_NODE = "h100x8-1"


@pytest.fixture
def cluster_settings(cluster_settings: Settings) -> Settings:
    """Not so patient with a GPU operator that never becomes ready."""
    addons = cluster_settings.addons.model_copy(update={"install_timeout_s": 30})
    return cluster_settings.model_copy(update={"addons": addons})


async def objects(server: KubernetesServer, kind: str) -> list[dict[str, Any]]:
    return await asyncio.to_thread(server.call, lambda: list(server.cluster.store.list(kind)))


async def releases(server: KubernetesServer) -> set[str]:
    found = await objects(server, "Secret")
    return {one["metadata"]["labels"]["name"] for one in found if one.get("type") == "helm.sh/release.v1"}


def break_image(server: KubernetesServer, image: str, *, missing: bool = True) -> None:
    simulation: Any = server.cluster.simulation
    server.call(lambda: simulation.inject("image_missing", image=image, missing=missing))


def forget_images(server: KubernetesServer) -> None:
    """The machines have to pull anew what they run next."""
    simulation: Any = server.cluster.simulation
    server.call(lambda: [machine.images.clear() for machine in simulation.world.machines.values()])


def run_pod(server: KubernetesServer, name: str, node: str = GPU_NODE) -> None:
    """A pod of somebody's that holds one GPU."""
    container = {"name": "train", "image": "team/train:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    server.call(
        lambda: server.cluster.store.create({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [container], "nodeName": node, "tolerations": [{"operator": "Exists"}]},
        })
    )  # fmt: skip


async def begin_to_share(onboarder: Onboarder, cluster_id: str, **choice: Any) -> str:
    answer = await onboarder.client.post(f"/clusters/{cluster_id}/install-hami", json=choice)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["operation_id"])


async def share(onboarder: Onboarder, cluster_id: str, **choice: Any) -> dict[str, Any]:
    return await onboarder.ended(await begin_to_share(onboarder, cluster_id, **choice))


async def addons(onboarder: Onboarder, cluster_id: str) -> dict[str, dict[str, Any]]:
    answer = await onboarder.client.get(f"/clusters/{cluster_id}/addons")
    return {one["name"]: one for one in answer.json()["items"]}


async def offered(onboarder: Onboarder, cluster_id: str, sharing: str, count: int) -> None:
    """Wait until the big node is seen to hand out its GPUs this way, in this number."""
    seen: Any = None
    deadline = time.monotonic() + 30
    while seen != [(sharing, count)]:
        assert time.monotonic() < deadline, f"{seen} instead of {sharing}, {count}"
        answer = await onboarder.client.get(f"/clusters/{cluster_id}/nodes", params={"name_prefix": GPU_NODE})
        nodes = answer.json().get("items", ())
        seen = [(pool["sharing"], pool["advertised"]) for node in nodes for pool in node["pools"]]
        await asyncio.sleep(0.1)


async def changed(
    onboarder: Onboarder, server: KubernetesServer, cluster_id: str, mode: str, *, offers: int, **ways: Any
) -> None:
    """Choose another sharing, and see that it is there."""
    operation = await share(onboarder, cluster_id, mode=mode, **ways)
    assert operation["status"] == "SUCCEEDED", operation
    await offered(onboarder, cluster_id, mode, offers)
    assert ("hami" in await releases(server)) is (mode == "hami")
    assert (await onboarder.cluster(cluster_id))["gpu_count"] == 9


async def begun_to_share(onboarder: Onboarder, cluster_id: str, mode: str) -> str:
    """A change in whose midst whoever handed out GPUs has left, or is leaving."""
    operation_id = await begin_to_share(onboarder, cluster_id, mode=mode)

    async def progress() -> int:
        operation = (await onboarder.client.get(f"/operations/{operation_id}")).json()
        return next(step["percent"] for step in operation["steps"] if step["name"] == "install_gpu_operator")

    await until(progress, lambda percent: percent >= 20)
    return operation_id


async def refused_midway(onboarder: Onboarder, server: KubernetesServer, cluster_id: str) -> dict[str, Any]:
    """A change to HAMi, in the midst of which somebody's pod takes a GPU."""
    operation_id = await begun_to_share(onboarder, cluster_id, "hami")
    run_pod(server, "training", node="joins-just-now")
    operation = await onboarder.ended(operation_id)
    server.call(lambda: server.cluster.store.delete("Pod", "default", "training", grace_seconds=0))
    return operation


async def test_sharing_can_be_changed_all_the_way_round_and_a_change_that_comes_to_nothing_leaves_it_as_before(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.onboarded(gpu_cluster)
    await offered(onboarder, cluster_id, "hami", 80)
    await changed(onboarder, gpu_cluster, cluster_id, "time-slicing", replicas_per_gpu=4, offers=32)
    await changed(onboarder, gpu_cluster, cluster_id, "time-slicing", replicas_per_gpu=2, offers=16)

    forbidden = Fault("forbidden", verbs=("patch",), resources=("clusterpolicies",), times=1)
    gpu_cluster.call(lambda: gpu_cluster.cluster.faults.add(forbidden))
    failed = await share(onboarder, cluster_id, mode="time-slicing", replicas_per_gpu=8)
    assert failed["status"] == "FAILED"
    assert "as before: GPUs are time-sliced" in failed["error"]["detail"]
    await offered(onboarder, cluster_id, "time-slicing", 16)

    refused = await refused_midway(onboarder, gpu_cluster, cluster_id)
    assert (refused["status"], refused["error"]["type"]) == ("FAILED", "sharing-refused")
    assert "default/training" in refused["error"]["detail"]
    assert "as before: GPUs are time-sliced" in refused["error"]["detail"]
    await offered(onboarder, cluster_id, "time-slicing", 16)

    # The inventory may know the pod still.
    await changed(onboarder, gpu_cluster, cluster_id, "hami", force=True, offers=80)
    await changed(onboarder, gpu_cluster, cluster_id, "none", offers=8)


async def test_hami_is_brought_back_by_a_change_that_fails_midway_or_is_cancelled(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.onboarded(gpu_cluster)
    break_image(gpu_cluster, "*device-plugin*")
    forget_images(gpu_cluster)
    failed = await share(onboarder, cluster_id, mode="time-slicing")
    assert failed["status"] == "FAILED"
    assert "state-device-plugin" in failed["error"]["detail"]
    assert "as before: GPUs are shared by HAMi" in failed["error"]["detail"]
    await offered(onboarder, cluster_id, "hami", 80)

    operation_id = await begun_to_share(onboarder, cluster_id, "time-slicing")
    assert (await onboarder.client.post(f"/operations/{operation_id}/cancel")).status_code == 202
    cancelled = await onboarder.ended(operation_id)
    assert (cancelled["status"], cancelled["result"]["left"]) == ("CANCELLED", [])
    await offered(onboarder, cluster_id, "hami", 80)
    assert (await onboarder.cluster(cluster_id))["settings"]["gpu_sharing"] == "hami"


async def test_a_hami_that_breaks_leaves_the_gpus_usable_whole_and_they_are_not_taken_from_pods_later(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    break_image(gpu_cluster, "*kube-scheduler*")
    cluster_id = await onboarder.register()
    operation = await onboarder.ended(await onboarder.begin(cluster_id, gpu_cluster))
    assert operation["status"] == "SUCCEEDED", operation
    step = next(step for step in operation["steps"] if step["name"] == "install_hami")
    assert "ADDONS__KUBE_SCHEDULER_TAG" in step["detail"]
    assert "handed out whole" in step["detail"]
    assert (await addons(onboarder, cluster_id))["hami"]["state"] == "FAILED"
    assert "hami" not in await releases(gpu_cluster)
    await offered(onboarder, cluster_id, "none", 8)

    run_pod(gpu_cluster, "training")
    refused = await share(onboarder, cluster_id, mode="hami")
    assert (refused["status"], refused["error"]["type"]) == ("FAILED", "sharing-refused")
    assert "default/training" in refused["error"]["detail"]
    await offered(onboarder, cluster_id, "none", 8)

    failed = await share(onboarder, cluster_id, mode="hami", force=True)
    assert failed["status"] == "FAILED"
    assert "ADDONS__KUBE_SCHEDULER_TAG" in failed["error"]["detail"]
    assert "handed out whole" in failed["error"]["detail"]
    break_image(gpu_cluster, "*kube-scheduler*", missing=False)
    answer = await onboarder.client.post(f"/operations/{failed['id']}/retry")
    assert answer.status_code == 202, answer.text
    again = await onboarder.ended(failed["id"])
    assert again["status"] == "SUCCEEDED", again
    await offered(onboarder, cluster_id, "hami", 80)

    body = {"mode": "none"}
    refusal = await onboarder.client.post(f"/clusters/{cluster_id}/install-hami", json=body)
    assert (refusal.status_code, refusal.json()["type"]) == (409, "/problems/gpus-in-use")
    assert refusal.json()["pods"] == ["default/training"]
    forced = await share(onboarder, cluster_id, **body, force=True)
    assert forced["status"] == "SUCCEEDED", forced
    await offered(onboarder, cluster_id, "none", 8)


def helm(variables: Mapping[str, str], release: str, chart: str, namespace: str, **values: Any) -> None:
    subprocess.run(
        ["helm", "install", release, str(CHARTS / chart), "--namespace", namespace, "--create-namespace", "-f", "-"],
        input=json.dumps(values), text=True, env=dict(variables), check=True, capture_output=True,
    )  # fmt: skip


async def test_what_others_installed_is_used_as_it_is_and_stays_with_its_labels(
    onboarder: Onboarder, gpu_cluster: KubernetesServer, tmp_path: Path, tool_home: dict[str, str]
) -> None:
    gpu_cluster.write_kubeconfig(tmp_path / "theirs")
    theirs = {**tool_home, "KUBECONFIG": str(tmp_path / "theirs")}

    def label(node: dict[str, Any]) -> None:
        node["metadata"]["labels"]["gpu"] = "on"

    gpu_cluster.call(lambda: gpu_cluster.cluster.store.update("Node", None, GPU_NODE, label))
    everywhere = {"worker": {"tolerations": [{"operator": "Exists"}]}}
    await asyncio.to_thread(helm, theirs, "their-nfd", "node-feature-discovery", "discovery", **everywhere)
    await asyncio.to_thread(helm, theirs, "their-gpus", "gpu-operator", "gpus", nfd={"enabled": False})
    await asyncio.to_thread(
        helm, theirs, "their-hami", "hami", "kube-system", devicePlugin={"runtimeClassName": "nvidia"}
    )
    await asyncio.to_thread(helm, theirs, "their-kps", "kube-prometheus-stack", "observability")
    present = await releases(gpu_cluster)

    cluster_id = await onboarder.onboarded(gpu_cluster)
    assert {name: one["owner"] for name, one in (await addons(onboarder, cluster_id)).items()} == dict.fromkeys(
        ("prometheus", "nfd", "gpu-operator", "hami"), "OTHER"
    )
    refused = await share(onboarder, cluster_id, mode="none")
    assert (refused["status"], refused["error"]["type"]) == ("FAILED", "sharing-refused")
    answer = await onboarder.client.delete(f"/clusters/{cluster_id}")
    operation = await onboarder.ended(answer.json()["operation_id"])
    assert operation["status"] == "SUCCEEDED", operation
    assert await releases(gpu_cluster) == present
    labels = {node["metadata"]["name"]: node["metadata"]["labels"] for node in await objects(gpu_cluster, "Node")}
    assert (labels[GPU_NODE]["gpu"], MARK in labels[GPU_NODE]) == ("on", False)
    assert not [name for name, found in labels.items() if name != GPU_NODE and "gpu" in found]
