"""When an add-on's pods are up, and which will never be: on objects as a cluster gives them."""

import re
from typing import Any

import pytest

from budcluster.config import AddonSettings
from budcluster.hardware import hami, nfd
from budcluster.hardware.hami_annotations import REGISTER
from budcluster.hardware.reader import DETECTED
from budcluster.hardware.rollout import NotUp, broken, is_up, wait_until_up
from budcluster.hardware.survey import pause_after
from tests.hardware.clients import Shelf


def pod(on: str = "a", *, restarts: int = 0, reason: str = "", message: str = "", uid: str = "1") -> dict[str, Any]:
    status = {
        "name": "worker", "image": "registry.k8s.io/kube-scheduler:v1.36.9", "restartCount": restarts,
        "state": {"waiting": {"reason": reason, "message": message}} if reason else {"running": {}},
        "lastState": {"terminated": {"exitCode": 3, "message": "no NVML"}} if restarts else {},
    }  # fmt: skip
    return {
        "metadata": {"name": f"worker-{on}", "uid": uid},
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
            r"no image .*kube-scheduler:v1\.36",
        ),
        (pod(reason="InvalidImageName"), "no image"),
    ],
)
def test_a_container_is_broken_when_waiting_will_not_help(found: dict[str, Any], reason: str | None) -> None:
    sentences = [str(one) for one in broken([found])]
    assert len(sentences) == (1 if reason else 0)
    assert all(re.search(str(reason), sentence) for sentence in sentences)


def test_that_an_image_does_not_exist_may_stand_in_the_events_alone() -> None:
    waiting = pod(reason="ImagePullBackOff", message="Back-off pulling image")
    said = 'Failed to pull image "registry.k8s.io/kube-scheduler:v1.36.9": code = NotFound desc = not found'
    assert "no image" in str(broken([waiting], told={"worker-a": said})[0])
    assert not broken([waiting], told={"worker-a": said.replace("kube-scheduler", "another")})


def test_a_pod_that_is_being_deleted_is_not_judged() -> None:
    ending = pod(reason="CrashLoopBackOff", restarts=9)
    ending["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    assert not broken([ending])


async def test_events_are_read_for_the_image_of_an_init_container_too() -> None:
    waiting = pod(reason="ImagePullBackOff", message="Back-off pulling image")
    waiting["status"] = {"initContainerStatuses": waiting["status"]["containerStatuses"]}
    said = 'Failed to pull image "registry.k8s.io/kube-scheduler:v1.36.9": code = NotFound desc = not found'
    late = {"metadata": {"name": "worker"}}
    shelf = Shelf(events=[{"reason": "Failed", "message": said}], deployments=[late], pods=[waiting])
    with pytest.raises(NotUp, match="there is no image"):
        await wait_until_up(shelf.client, nfd.addon(AddonSettings()), timeout_s=10)


def test_an_image_that_cannot_be_pulled_for_long_counts_as_broken_too() -> None:
    (found,) = broken([pod(reason="ImagePullBackOff", message="i/o timeout")], or_pulling=True)
    assert found.is_pull
    assert "cannot be pulled" in str(found)


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


def test_a_register_of_former_times_does_not_count_where_nothing_is_offered() -> None:
    stale = gpu_node("a")
    stale["metadata"]["labels"]["nvidia.com/gpu.present"] = "true"
    stale["status"]["allocatable"] = {"nvidia.com/gpu": "0"}
    assert hami.registration([stale], []).waiting == ("a",)


def daemon_set(*, desired: int, updated: int) -> dict[str, Any]:
    status = {"observedGeneration": 1, "desiredNumberScheduled": desired, "updatedNumberScheduled": updated}
    return {"metadata": {"generation": 1}, "status": status}


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


def test_a_node_without_a_worker_is_waited_for_while_workers_are_still_being_placed() -> None:
    places = [daemon_set(desired=2, updated=1)]
    found = nfd.judge(nodes=[node("a"), node("b")], workers=[pod("a")], daemon_sets=places)
    assert found.missing == ("a", "b")


def test_a_worker_that_crashes_is_not_waited_for() -> None:
    found = nfd.judge(nodes=[node("a")], workers=[pod("a", reason="CrashLoopBackOff", restarts=9)])
    assert found.is_complete
    assert "crashes" in found.not_covered[0]


@pytest.mark.parametrize(("look_s", "pause_s"), [(0.1, 1.0), (4.0, 8.0)])
def test_nodes_whose_list_takes_long_are_looked_at_less_often(look_s: float, pause_s: float) -> None:
    assert pause_after(look_s) == pause_s
