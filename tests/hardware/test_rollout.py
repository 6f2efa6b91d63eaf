"""When an add-on's pods are up, and which will never be: on objects as a cluster gives them."""

import re
from typing import Any

import pytest

from budcluster.config import AddonSettings
from budcluster.hardware import hami, nfd
from budcluster.hardware.reading.hami_annotations import REGISTER
from budcluster.hardware.reading.reader import DETECTED
from budcluster.hardware.rollout import NotUp, broken, is_up, retry_stuck, wait_until_up
from budcluster.hardware.survey import pause_after
from tests.hardware.clients import Shelf


def made_by(maker: str) -> list[dict[str, Any]]:
    return [{"uid": maker, "controller": True}]


def pod(
    on: str = "a", *, restarts: int = 0, reason: str = "", message: str = "", uid: str = "1", by: str = "set",
    revision: str = "",
) -> dict[str, Any]:  # fmt: skip
    status = {
        "name": "worker", "image": "registry.k8s.io/kube-scheduler:v1.36.9", "restartCount": restarts,
        "state": {"waiting": {"reason": reason, "message": message}} if reason else {"running": {}},
        "lastState": {"terminated": {"exitCode": 3, "message": "no NVML"}} if restarts else {},
    }  # fmt: skip
    labels = {"controller-revision-hash": revision} if revision else {}
    return {
        "metadata": {
            "name": f"worker-{on}",
            "namespace": "nfd",
            "uid": uid,
            "labels": labels,
            "ownerReferences": made_by(by),
        },
        "spec": {"nodeName": on},
        "status": {"containerStatuses": [status]},
    }


def node(name: str, *, ready: bool = True, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, **metadata},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}], "allocatable": {"nvidia.com/gpu": "80"}},
    }


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (pod(), None),
        (pod(reason="ContainerCreating"), None),
        (pod(reason="CrashLoopBackOff", restarts=2), None),
        (pod(reason="CrashLoopBackOff", restarts=4), r"exit code 3 \(no NVML\)"),
        (pod(reason="ErrImagePull", message="rpc error: i/o timeout"), None),
        (
            pod(reason="ErrImagePull", message="code = NotFound desc = x: not found"),
            r"no such image .*kube-scheduler:v1\.36",
        ),
        (pod(reason="ErrImagePull", message="no match for platform in manifest: not found"), "node's processor"),
        (pod(reason="InvalidImageName"), "name is not valid"),
    ],
)
def test_a_container_is_broken_when_waiting_will_not_help(found: dict[str, Any], reason: str | None) -> None:
    sentences = [str(one) for one in broken([found])]
    assert len(sentences) == (1 if reason else 0)
    assert all(re.search(str(reason), sentence) for sentence in sentences)


def test_that_an_image_does_not_exist_may_stand_in_the_events_alone() -> None:
    waiting = pod(reason="ImagePullBackOff", message="Back-off pulling image")
    said = 'Failed to pull image "registry.k8s.io/kube-scheduler:v1.36.9": code = NotFound desc = not found'
    assert "no such image" in str(broken([waiting], told={"worker-a": ["i/o timeout", said]})[0])
    assert not broken([waiting], told={"worker-a": [said.replace("kube-scheduler", "another")]})


def test_a_pod_that_is_being_deleted_is_not_judged() -> None:
    ending = pod(reason="CrashLoopBackOff", restarts=9)
    ending["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    assert not broken([ending])


async def test_events_are_read_for_the_image_of_an_init_container_too() -> None:
    waiting = pod(reason="ImagePullBackOff", message="Back-off pulling image")
    waiting["status"] = {"initContainerStatuses": waiting["status"]["containerStatuses"]}
    said = 'Failed to pull image "registry.k8s.io/kube-scheduler:v1.36.9": code = NotFound desc = not found'
    shelf = Shelf(
        events=[{"reason": "Failed", "message": said}], statefulsets=[workload("set", revision=None)], pods=[waiting]
    )
    with pytest.raises(NotUp, match="there is no such image"):
        await wait_until_up(shelf.client, NFD, timeout_s=10)


def test_an_image_that_cannot_be_pulled_for_long_counts_as_broken_too() -> None:
    (found,) = broken([pod(reason="ImagePullBackOff", message="i/o timeout")], or_pulling=True)
    assert found.is_pull
    assert "cannot reach the registry" in str(found)


NFD = nfd.addon(AddonSettings())
REVISION = "deployment.kubernetes.io/revision"


def workload(
    uid: str, *, revision: str | None = "2", update: str = "", observed: int = 2, release: str = "nfd"
) -> dict[str, Any]:
    """One that is late: a Deployment, or a StatefulSet whose newest pods bear `update`."""
    annotations = {"meta.helm.sh/release-name": release, **({REVISION: revision} if revision else {})}
    return {
        "metadata": {"name": "worker", "uid": uid, "generation": 2, "annotations": annotations},
        "spec": {"replicas": 1},
        "status": {"observedGeneration": observed, **({"updateRevision": update} if update else {})},
    }


def replica_set(revision: int) -> dict[str, Any]:
    metadata = {"uid": f"set-{revision}", "annotations": {REVISION: str(revision)}, "ownerReferences": made_by("d")}
    return {"metadata": metadata, "spec": {"replicas": 1}}


CRASHING: dict[str, Any] = {"reason": "CrashLoopBackOff", "restarts": 9}
SETS = [replica_set(1), replica_set(2)]


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ({"deployments": [workload("d")], "replicasets": SETS, "pods": [pod(by="set-2", **CRASHING)]}, "crashes"),
        ({"deployments": [workload("d")], "replicasets": SETS, "pods": [pod(by="set-1", **CRASHING)]}, "within 0 s"),
        (
            {
                "deployments": [workload("d", observed=1)],
                "replicasets": SETS,
                "pods": [pod(by="set-2", **CRASHING)],
            },
            "within 0 s",
        ),
        ({"statefulsets": [workload("s", update="new")], "pods": [pod(by="s", revision="new", **CRASHING)]}, "crashes"),
        (
            {"statefulsets": [workload("s", update="new")], "pods": [pod(by="s", revision="old", **CRASHING)]},
            "within 0 s",
        ),
        (
            {
                "statefulsets": [workload("s", update="new", observed=1)],
                "pods": [pod(by="s", revision="new", **CRASHING)],
            },
            "within 0 s",
        ),
        ({"deployments": [workload("d")], "replicasets": SETS, "pods": [pod(by="namesake", **CRASHING)]}, "within 0 s"),
    ],
    ids=["new set", "old set", "not seen", "new revision", "old revision", "revision not seen", "of a namesake"],
)
async def test_only_pods_of_the_present_template_tell_that_an_add_on_will_not_come_up(
    objects: dict[str, Any], said: str
) -> None:
    with pytest.raises(NotUp, match=said):
        await wait_until_up(Shelf(**objects).client, NFD, timeout_s=0)


async def test_pods_that_the_cluster_refuses_are_told_with_what_to_do() -> None:
    refused = workload("d")
    said = 'pods "worker-x" is forbidden: violates PodSecurity "baseline:latest": hostPath volumes (volume "host")'
    refused["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": said}]
    with pytest.raises(NotUp, match=r"worker has no pods.*baseline.*hostPath.*enforce=privileged"):
        await wait_until_up(Shelf(deployments=[refused]).client, NFD, timeout_s=0)


async def test_what_waits_in_a_backoff_is_made_afresh_if_it_is_of_our_release() -> None:
    starting = pod("starting", by="set-2", restarts=9)
    starting["status"]["containerStatuses"][0]["ready"] = False
    serving = pod("serving", by="set-2", restarts=9)
    serving["status"]["containerStatuses"][0]["ready"] = True
    shelf = Shelf(
        deployments=[workload("d"), workload("theirs", release="another")],
        replicasets=SETS,
        daemonsets=[workload("workers", revision=None)],
        pods=[
            pod("pulls", by="set-2", reason="ImagePullBackOff"), pod("crashes", by="workers", **CRASHING), starting,
            pod("old", by="set-1", reason="ErrImagePull"), serving, pod("new", by="set-2", reason="ContainerCreating"),
            pod("of-theirs", by="theirs", **CRASHING), pod("of-nobody", by="", **CRASHING),
        ],
    )  # fmt: skip
    await retry_stuck(shelf.client, NFD)
    assert shelf.deleted == ["worker-pulls", "worker-crashes", "worker-starting", "worker-old"]


@pytest.mark.parametrize(
    ("status", "is_it"),
    [
        ({"observedGeneration": 2, "updatedReplicas": 1, "readyReplicas": 1}, True),
        ({"observedGeneration": 1, "updatedReplicas": 1, "readyReplicas": 1}, False),
        ({"observedGeneration": 2, "updatedReplicas": 0, "readyReplicas": 1}, False),
        ({"observedGeneration": 2, "updatedReplicas": 1}, False),
        ({}, False),
    ],
)
def test_a_workload_is_up_when_its_present_template_is_ready(status: dict[str, int], is_it: bool) -> None:
    assert is_up({"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": status}) is is_it


def gpu_node(name: str, *, label: str = "on", registered: bool = True, ready: bool = True) -> dict[str, Any]:
    annotations = {REGISTER: "[]"} if registered else {}
    return node(name, ready=ready, labels={"gpu": label}, annotations=annotations)


def test_nodes_that_cannot_offer_shares_are_left_out_with_the_reason_and_not_waited_for() -> None:
    cpu = node("cpu", labels={"gpu": "on"})
    cpu["status"]["allocatable"] = {"cpu": "8"}
    nodes = [
        gpu_node("good"), gpu_node("slow", registered=False), gpu_node("down", ready=False, registered=False),
        gpu_node("dead", registered=False), gpu_node("theirs", label="tesla"), cpu,
    ]  # fmt: skip
    found = hami.registration(nodes, [pod("dead", reason="CrashLoopBackOff", restarts=5), pod("slow")])
    assert (found.done, found.waiting) == (("good",), ("slow",))
    left_out = dict(sentence.split(": ", 1) for sentence in found.left_out)
    assert left_out.keys() == {"down", "dead", "theirs"}
    assert "not ready" in left_out["down"]
    assert "crashes" in left_out["dead"]
    assert "gpu=tesla" in left_out["theirs"]


@pytest.mark.parametrize(("generation", "why"), [(1, "crashes"), (2, "no GPU was registered")])
async def test_a_plugin_of_a_template_that_is_being_replaced_keeps_no_node_out(generation: int, why: str) -> None:
    shelf = Shelf(
        nodes=[gpu_node("a", registered=False)],
        daemonsets=[daemon_set(desired=1, updated=1, generation=generation)],
        pods=[pod("a", **CRASHING)],
    )
    with pytest.raises(hami.SharesMissing, match=why):
        await hami.wait_until_registered(shelf.client, timeout_s=0, on_progress=lambda *_: None)


def test_a_register_of_former_times_does_not_count_where_nothing_is_offered() -> None:
    stale = gpu_node("a")
    stale["metadata"]["labels"]["nvidia.com/gpu.present"] = "true"
    stale["status"]["allocatable"] = {"nvidia.com/gpu": "0"}
    assert hami.registration([stale], []).waiting == ("a",)


def daemon_set(*, desired: int, updated: int, generation: int = 1) -> dict[str, Any]:
    status = {"observedGeneration": 1, "desiredNumberScheduled": desired, "updatedNumberScheduled": updated}
    return {"metadata": {"uid": "set", "generation": generation}, "status": status}


def test_a_node_is_detected_once_the_worker_of_now_has_reported() -> None:
    nodes = [node("a", annotations={DETECTED: ""}), node("b", annotations={DETECTED: ""})]
    workers = [pod("a", uid="new"), pod("b", uid="same")]
    found = nfd.judge(nodes=nodes, workers=workers, reporters={"a": "old", "b": "same"})
    assert (found.covered, found.missing) == (("b",), ("a",))


def test_a_discovery_that_does_not_say_who_reported_is_taken_at_its_word() -> None:
    found = nfd.judge(nodes=[node("a", annotations={DETECTED: ""})], workers=[pod("a")])
    assert found.covered == ("a",)


def test_the_taint_that_keeps_discovery_off_a_node_is_told() -> None:
    tainted = node("b")
    tainted["spec"] = {"taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]}
    places = [daemon_set(desired=1, updated=1)]
    found = nfd.judge(nodes=[node("a", annotations={DETECTED: ""}), tainted], workers=[pod("a")], daemon_sets=places)
    assert found.is_complete
    assert "sku=gpu:NoSchedule" in found.not_covered[0]
    assert found.said(timeout_s=30).startswith("1 of 2 nodes were detected. Not covered: b: ")


def test_a_summary_of_detection_names_the_first_nodes_that_are_missing_and_counts_the_others() -> None:
    found = nfd.judge(nodes=[node(name) for name in "abcdefg"])
    assert found.said(timeout_s=30) == ("0 of 7 nodes were detected. Not within 30 s: a, b, c, d, e and 2 more.")


def test_a_node_without_a_worker_is_waited_for_while_workers_are_still_being_placed() -> None:
    places = [daemon_set(desired=2, updated=1)]
    found = nfd.judge(nodes=[node("a"), node("b")], workers=[pod("a")], daemon_sets=places)
    assert found.missing == ("a", "b")


def test_a_worker_that_crashes_is_not_waited_for_once_the_newest_template_is_in_use() -> None:
    nodes, workers = [node("a")], [pod("a", **CRASHING)]
    found = nfd.judge(nodes=nodes, workers=workers, daemon_sets=[daemon_set(desired=1, updated=1)])
    assert found.is_complete
    assert "crashes" in found.not_covered[0]
    found = nfd.judge(nodes=nodes, workers=workers, daemon_sets=[daemon_set(desired=1, updated=1, generation=2)])
    assert found.missing == ("a",)


@pytest.mark.parametrize(("look_s", "pause_s"), [(0.1, 1.0), (4.0, 8.0)])
def test_nodes_whose_list_takes_long_are_looked_at_less_often(look_s: float, pause_s: float) -> None:
    assert pause_after(look_s) == pause_s
