"""Where pods go, and the scheduler's words when they go nowhere."""

from __future__ import annotations

import pytest

from sandbox.kubernetes.simulation.placement import NodeRoom, refusal, unschedulable_message, wish_of
from sandbox.kubernetes.simulation.quantities import amounts, pod_requests
from tests.sandbox.simulation.objects import container, pod, workload

TAINT = {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}


def room(name="n1", *, gpus="8", taints=(), labels=None, unschedulable=False):
    allocatable = amounts({"cpu": "8", "memory": "32Gi", "pods": "110", "nvidia.com/gpu": gpus})
    return NodeRoom(name, {"kubernetes.io/hostname": name, **(labels or {})}, list(taints), unschedulable, allocatable)


@pytest.mark.parametrize(
    ("spec", "node", "reason"),
    [
        ({}, room(taints=[TAINT]), "node(s) had untolerated taint(s)"),
        ({"tolerations": [{"operator": "Exists"}]}, room(taints=[TAINT]), None),
        (
            {"tolerations": [{"key": "nvidia.com/gpu", "value": "no"}]},
            room(taints=[TAINT]),
            "node(s) had untolerated taint(s)",
        ),
        ({}, room(unschedulable=True), "node(s) were unschedulable"),
        ({"nodeSelector": {"gpu": "on"}}, room(), "node(s) didn't match Pod's node affinity/selector"),
        ({"nodeSelector": {"gpu": "on"}}, room(labels={"gpu": "on"}), None),
        ({"containers": [container(limits={"nvidia.com/gpu": "9"})]}, room(), "Insufficient nvidia.com/gpu"),
        ({"containers": [container(limits={"nvidia.com/gpumem": "9"})]}, room(), "Insufficient nvidia.com/gpumem"),
        ({"initContainers": [container(limits={"cpu": "9"})]}, room(), "Insufficient cpu"),
    ],
)
def test_a_node_refuses_with_the_reason_of_kubernetes(spec, node, reason):
    wanted = pod("p")
    wanted["spec"].update(spec)
    found = refusal(wish_of(wanted), node)
    assert (found.reasons[0] if found else None) == reason


def test_requests_are_the_largest_of_init_and_main_with_sidecars():
    spec = {
        "containers": [container(limits={"cpu": "1"}), container(limits={"cpu": "500m"})],
        "initContainers": [
            {**container(limits={"cpu": "250m"}), "restartPolicy": "Always"}, container(limits={"cpu": "2"})
        ],
    }  # fmt: skip
    assert pod_requests(spec) == {"cpu": 2250}


def test_the_message_counts_reasons_and_says_whether_preemption_would_help():
    wish = wish_of(pod("p", container(limits={"nvidia.com/gpu": "4"})))
    full = room("full")
    full.add("x", wish_of(pod("q", container(limits={"nvidia.com/gpu": "6"}))).placed)
    refusals = [refusal(wish, node) for node in (full, room("none", gpus="0"), room("tainted", taints=[TAINT]))]
    assert unschedulable_message(3, [row for row in refusals if row]) == (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient nvidia.com/gpu. "
        "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling."
    )


def test_the_fifth_pod_of_four_gpus_waits_until_one_ends(make_cluster):
    cluster = make_cluster("mi300x:2,cpu:1")
    cluster.create(workload("Deployment", "llm", container(limits={"amd.com/gpu": "4"}), replicas=5))
    cluster.advance(10)
    phases = sorted(pod["status"]["phase"] for pod in cluster.pods())
    assert phases == ["Pending", "Running", "Running", "Running", "Running"]
    assert cluster.events("FailedScheduling") == [
        "0/3 nodes are available: 3 Insufficient amd.com/gpu. preemption: 0/3 nodes are available: "
        "1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
    ]
    cluster.store.update("Deployment", "default", "llm", lambda obj: obj["spec"].update(replicas=4))
    cluster.advance(60)
    assert [pod["status"]["phase"] for pod in cluster.pods()] == ["Running"] * 4


def test_a_cordoned_node_gets_no_new_pod(make_cluster):
    cluster = make_cluster("cpu:1")
    cluster.store.update("Node", None, "cpu-1", lambda node: node["spec"].update(unschedulable=True))
    cluster.create(pod("p"))
    cluster.advance(5)
    assert cluster.node("cpu-1")["spec"]["taints"][0]["key"] == "node.kubernetes.io/unschedulable"
    assert "1 node(s) were unschedulable" in cluster.events("FailedScheduling")[0]


def test_spread_and_anti_affinity_keep_replicas_apart(make_cluster):
    cluster = make_cluster("cpu:2")
    rule = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}}
    cluster.create(workload("Deployment", "web", replicas=3, pod_spec={"affinity": apart}))
    cluster.advance(5)
    nodes = [pod["spec"].get("nodeName") for pod in cluster.pods()]
    assert sorted(str(node) for node in nodes) == ["None", "cpu-1", "cpu-2"]
    assert "2 node(s) didn't match pod anti-affinity rules" in cluster.events("FailedScheduling")[0]


def test_an_unknown_claim_is_named(make_cluster):
    cluster = make_cluster("cpu:1")
    volume = {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    cluster.create(pod("p", volumes=[volume]))
    assert cluster.events("FailedScheduling")[0].startswith(
        '0/1 nodes are available: persistentvolumeclaim "models" not found. preemption:'
    )
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    meta = {"name": "models", "namespace": "default"}
    cluster.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim})
    cluster.advance(10)
    assert cluster.get("PersistentVolumeClaim", "models")["status"]["phase"] == "Bound"
    assert cluster.pod("p")["status"]["phase"] == "Running"


def test_no_storage_class_is_told_on_the_claim(make_cluster):
    cluster = make_cluster("cpu:1")
    cluster.store.delete("StorageClass", None, "standard")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    meta = {"name": "models", "namespace": "default"}
    cluster.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim})
    expected = "no persistent volumes available for this claim and no storage class is set"
    assert cluster.events("FailedBinding") == [expected]
