"""Taking an existing cluster into service: the simulated one, with real Helm and real Ansible."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from budcluster.hardware.hami import MARK
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.fixtures.cluster import Onboarder
from tests.kube.certificates import OTHER, b64

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def _objects(server: KubernetesServer, kind: str) -> list[dict[str, Any]]:
    return await asyncio.to_thread(server.call, lambda: list(server.cluster.store.list(kind)))


async def test_a_gpu_cluster_ends_ready_with_its_gpus_counted_and_a_second_run_changes_nothing(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.register("lab")
    operation = await onboarder.ended(await onboarder.begin(cluster_id, gpu_cluster))
    assert operation["status"] == "SUCCEEDED", operation
    assert [step["status"] for step in operation["steps"]] == ["SUCCEEDED"] * 9
    cluster = await onboarder.cluster(cluster_id)
    assert (cluster["status"], cluster["node_count"], cluster["gpu_count"]) == ("READY", 3, 9)
    assert cluster["kubernetes_version"].startswith("v1.36")
    releases = {secret["metadata"]["labels"]["name"] for secret in await _helm_secrets(gpu_cluster)}
    assert releases == {"kps", "nfd", "gpu-operator", "hami"}
    usage = (await onboarder.client.get(f"/clusters/{cluster_id}/usage")).json()
    assert (usage["source"], usage["witness"], usage["notes"]) == ("prometheus", "monitoring/kps-prometheus", [])
    assert usage["cpu_cores"]["used"] > 0
    assert sorted(gpu["model"] for gpu in usage["devices"]) == ["NVIDIA-H100-80GB-HBM3"] * 8 + ["NVIDIA-L40S"]
    before = len(await _helm_secrets(gpu_cluster))
    again = await onboarder.ended(await onboarder.begin(cluster_id, gpu_cluster))
    assert again["status"] == "SUCCEEDED", again
    assert len(await _helm_secrets(gpu_cluster)) == before
    answer = await onboarder.client.post(f"/clusters/{cluster_id}/detect-hardware")
    assert answer.status_code == 202, answer.text
    detected = await onboarder.ended(answer.json()["operation_id"])
    assert [step["name"] for step in detected["steps"]] == ["install_nfd", "detect_nodes", "read_hardware"]
    assert detected["status"] == "SUCCEEDED", detected


async def _helm_secrets(server: KubernetesServer) -> list[dict[str, Any]]:
    return [secret for secret in await _objects(server, "Secret") if secret.get("type") == "helm.sh/release.v1"]


async def test_deleting_takes_away_only_what_the_service_brought(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    before = {namespace["metadata"]["name"] for namespace in await _objects(gpu_cluster, "Namespace")}
    cluster_id = await onboarder.onboarded(gpu_cluster)
    answer = await onboarder.client.delete(f"/clusters/{cluster_id}")
    assert answer.status_code == 202
    operation = await onboarder.ended(answer.json()["operation_id"])
    assert operation["status"] == "SUCCEEDED", operation
    assert (await onboarder.client.get(f"/clusters/{cluster_id}")).status_code == 404
    assert await _helm_secrets(gpu_cluster) == []
    names = {namespace["metadata"]["name"] for namespace in await _objects(gpu_cluster, "Namespace")}
    assert names == before, operation["steps"][0]["detail"]
    for node in await _objects(gpu_cluster, "Node"):
        assert not {"gpu", MARK} & node["metadata"]["labels"].keys()
        assert not [note for note in node["metadata"]["annotations"] if note.startswith("hami.io/")]
    detail = operation["steps"][0]["detail"]
    assert detail.startswith("Removed: hami, gpu-operator, nfd, prometheus. Stays on purpose: definitions"), detail


async def test_a_dead_cluster_is_forgotten_and_what_may_be_left_is_told(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.onboarded(gpu_cluster, gpu_sharing="none")
    gpu_cluster.cluster.faults.add(Fault("drop"))
    answer = await onboarder.client.delete(f"/clusters/{cluster_id}")
    operation = await onboarder.ended(answer.json()["operation_id"])
    assert operation["status"] == "SUCCEEDED", operation
    assert "May be left" in operation["steps"][0]["detail"]
    assert (await onboarder.client.get(f"/clusters/{cluster_id}")).status_code == 404


async def test_the_same_cluster_cannot_be_onboarded_twice(onboarder: Onboarder, gpu_cluster: KubernetesServer) -> None:
    first = await onboarder.register()
    second = await onboarder.register()
    body = {"kubeconfig": gpu_cluster.kubeconfig()}
    answers = await asyncio.gather(
        *(onboarder.client.post(f"/clusters/{one}/onboard", json=body) for one in (first, second))
    )
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    refused = next(answer.json() for answer in answers if answer.status_code == 409)
    assert refused["type"] == "/problems/cluster-known-already"
    assert refused["cluster_id"] in {first, second}
    begun = next(answer.json() for answer in answers if answer.status_code == 202)
    await onboarder.ended(begun["operation_id"])


async def test_an_expired_credential_ends_in_error_with_the_cause_and_onboarding_again_goes_on(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.register()
    fault = gpu_cluster.cluster.faults.add(Fault("unauthorized"))
    failed = await onboarder.ended(await onboarder.begin(cluster_id, gpu_cluster))
    assert (failed["status"], failed["error"]["type"], failed["error"]["step"]) == (
        "FAILED", "unauthorized", "check_access",
    )  # fmt: skip
    cluster = await onboarder.cluster(cluster_id)
    assert (cluster["status"], cluster["error"]["step"]) == ("ERROR", "check_access")
    assert cluster["error"]["next_step"]
    gpu_cluster.cluster.faults.remove(fault)
    again = await onboarder.ended(await onboarder.begin(cluster_id, gpu_cluster, gpu_sharing="none"))
    assert again["status"] == "SUCCEEDED", again
    assert (await onboarder.cluster(cluster_id))["status"] == "READY"


async def test_a_missing_permission_is_named_before_anything_is_changed(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.register()
    body = {"kubeconfig": gpu_cluster.kubeconfig(token=gpu_cluster.cluster.tokens.viewer)}
    answer = await onboarder.client.post(f"/clusters/{cluster_id}/onboard", json=body)
    operation = await onboarder.ended(answer.json()["operation_id"])
    assert operation["error"]["type"] == "permissions-missing"
    assert "create/patch/delete namespaces" in operation["error"]["detail"]
    names = {namespace["metadata"]["name"] for namespace in await _objects(gpu_cluster, "Namespace")}
    assert "budcluster-system" not in names


async def test_a_cluster_that_is_deleted_while_it_is_onboarded_is_gone_in_the_end(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.register()
    onboarding = await onboarder.begin(cluster_id, gpu_cluster)
    assert await onboarder.is_running(onboarding, "install_nfd")
    answer = await onboarder.client.delete(f"/clusters/{cluster_id}")
    assert answer.status_code == 202
    assert (await onboarder.ended(onboarding))["status"] == "CANCELLED"
    assert (await onboarder.ended(answer.json()["operation_id"]))["status"] == "SUCCEEDED"
    assert (await onboarder.client.get(f"/clusters/{cluster_id}")).status_code == 404
    assert await _helm_secrets(gpu_cluster) == []


async def test_an_add_on_that_cannot_be_installed_degrades_and_does_not_fail(
    onboarder: Onboarder, gpu_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.register()
    gpu_cluster.cluster.faults.add(Fault("forbidden", verbs=("create", "patch"), resources=("statefulsets",)))
    operation = await onboarder.ended(await onboarder.begin(cluster_id, gpu_cluster, gpu_sharing="none"))
    assert operation["status"] == "SUCCEEDED", operation
    prometheus = next(step for step in operation["steps"] if step["name"] == "install_prometheus")
    assert "Goes on without Prometheus" in prometheus["detail"]


@pytest.fixture
def small_cluster() -> Iterator[KubernetesServer]:
    """One machine without GPUs."""
    with KubernetesServer(Options(nodes="cpu-amx:1", clock_factor=60)) as server:
        yield server


async def test_a_cluster_whose_add_ons_are_left_alone_is_served_and_left_with_a_narrow_role(
    onboarder: Onboarder, small_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.onboarded(small_cluster, manage_addons=False)
    cluster = await onboarder.cluster(cluster_id)
    assert (cluster["status"], cluster["node_count"]) == ("READY", 1)
    assert cluster["adoption_report"]["access"]["role"] == "narrow"
    assert await _helm_secrets(small_cluster) == []
    refused = await onboarder.client.post(f"/clusters/{cluster_id}/install-hami", json={})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/addons-not-managed")
    bindings = {binding["metadata"]["name"] for binding in await _objects(small_cluster, "ClusterRoleBinding")}
    assert "budcluster" not in bindings
    answer = await onboarder.client.delete(f"/clusters/{cluster_id}")
    operation = await onboarder.ended(answer.json()["operation_id"])
    assert operation["status"] == "SUCCEEDED", operation
    names = {namespace["metadata"]["name"] for namespace in await _objects(small_cluster, "Namespace")}
    assert "budcluster-system" not in names


async def test_a_kubeconfig_of_another_cluster_is_refused_and_the_cluster_stays_in_service(
    onboarder: Onboarder, small_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.onboarded(small_cluster, manage_addons=False)
    before = await onboarder.cluster(cluster_id)
    with KubernetesServer() as other:
        refused = await onboarder.ended(await onboarder.begin(cluster_id, other, manage_addons=False))
    assert (refused["status"], refused["error"]["type"]) == ("FAILED", "another-cluster")
    after = await onboarder.cluster(cluster_id)
    assert (after["status"], after["server"], after["error"]) == ("READY", before["server"], None)


async def test_a_wrong_certificate_authority_ends_in_error_with_the_cause(
    onboarder: Onboarder, small_cluster: KubernetesServer
) -> None:
    kubeconfig = yaml.safe_load(small_cluster.kubeconfig())
    kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"] = b64(OTHER.certificate)
    cluster_id = await onboarder.register()
    body = {"kubeconfig": json.dumps(kubeconfig)}
    answer = await onboarder.client.post(f"/clusters/{cluster_id}/onboard", json=body)
    operation = await onboarder.ended(answer.json()["operation_id"])
    assert (operation["error"]["type"], operation["error"]["step"]) == ("certificate-problem", "check_access")


async def test_a_credential_that_dies_midway_ends_in_error_and_a_retry_keeps_what_was_done(
    onboarder: Onboarder, small_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarder.register()
    operation_id = await onboarder.begin(cluster_id, small_cluster)
    assert await onboarder.is_running(operation_id, "install_nfd")
    with small_cluster.fault(Fault("unauthorized")):
        operation = await onboarder.ended(operation_id)
    assert (operation["status"], operation["error"]["type"]) == ("FAILED", "unauthorized"), operation
    assert (await onboarder.cluster(cluster_id))["status"] == "ERROR"
    prepared = operation["steps"][2]
    assert (prepared["name"], prepared["status"]) == ("prepare_cluster", "SUCCEEDED")
    assert (await onboarder.client.post(f"/operations/{operation_id}/retry")).status_code == 202
    again = await onboarder.ended(operation_id)
    assert (again["status"], again["attempt"]) == ("SUCCEEDED", 2), again
    assert again["steps"][2]["finished_at"] == prepared["finished_at"]
    assert again["result"]["adoption_report"]["nodes"] == 1
    addons = (await onboarder.client.get(f"/clusters/{cluster_id}/addons")).json()
    assert {addon["name"]: addon["state"] for addon in addons["items"]} == {"prometheus": "READY", "nfd": "READY"}
