"""Controllers and kubelets: rollouts, restarts, jobs, images, probes, services, lost nodes."""

from __future__ import annotations

import time

import pytest

from tests.sandbox.simulation.objects import container, job, pod, workload
from tests.sandbox.simulation.releases import namespace


def condition(obj, kind):
    return next(row for row in obj["status"]["conditions"] if row["type"] == kind)


def set_image(cluster, name, image):
    def change(obj):
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    cluster.store.update("Deployment", "default", name, change)


def test_a_rolling_update_keeps_the_old_revision_when_the_new_image_is_missing(make_cluster):
    cluster = make_cluster("cpu:3")
    cluster.create(workload("Deployment", "web", replicas=4, progressDeadlineSeconds=60))
    cluster.advance(10)
    set_image(cluster, "web", "nginx:missing")
    cluster.advance(120)
    status = cluster.get("Deployment", "web")
    assert status["status"]["readyReplicas"] == 3
    assert condition(status, "Progressing")["reason"] == "ProgressDeadlineExceeded"
    assert condition(status, "Progressing")["message"].endswith("has timed out progressing.")
    waiting = {
        row["state"]["waiting"]["reason"] for pod in cluster.pods() for row in pod["status"]["containerStatuses"]
        if "waiting" in row["state"]
    }  # fmt: skip
    assert waiting <= {"ImagePullBackOff", "ErrImagePull"}
    assert 'Back-off pulling image "nginx:missing"' in cluster.events("BackOff")
    set_image(cluster, "web", "nginx:1.29")
    cluster.advance(60)
    rolled_back = cluster.get("Deployment", "web")
    assert rolled_back["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert rolled_back["status"]["readyReplicas"] == rolled_back["status"]["updatedReplicas"] == 4


def test_a_rollback_takes_the_old_replica_set_up_again_though_the_client_adds_nulls(make_cluster):
    cluster = make_cluster("cpu:2")
    cluster.create(workload("Deployment", "web"))
    cluster.advance(10)
    first = cluster.store.list("ReplicaSet", "default")[0]["metadata"]["name"]
    set_image(cluster, "web", "nginx:1.30")
    cluster.advance(30)

    def undo(obj):
        obj["spec"]["template"]["metadata"]["creationTimestamp"] = None
        obj["spec"]["template"]["spec"]["containers"][0].update(image="nginx:1.29", env=[])

    cluster.store.update("Deployment", "default", "web", undo)
    cluster.advance(30)
    live = [one["metadata"]["name"] for one in cluster.store.list("ReplicaSet", "default") if one["spec"]["replicas"]]
    assert live == [first]


def test_recreate_lets_the_old_pods_go_first(make_cluster):
    cluster = make_cluster("mi300x:1")
    whole = container(limits={"amd.com/gpu": "8"})
    cluster.create(workload("Deployment", "llm", whole, strategy={"type": "Recreate"}))
    cluster.advance(10)
    set_image(cluster, "llm", "nginx:1.30")
    cluster.advance(30)
    assert [row["spec"]["containers"][0]["image"] for row in cluster.pods()] == ["nginx:1.30"]
    assert cluster.get("Deployment", "llm")["status"]["readyReplicas"] == 1


def test_a_surge_without_room_never_finishes(make_cluster):
    cluster = make_cluster("mi300x:1")
    cluster.create(workload("Deployment", "llm", container(limits={"amd.com/gpu": "8"}), progressDeadlineSeconds=60))
    cluster.advance(10)
    set_image(cluster, "llm", "nginx:1.30")
    cluster.advance(100)
    assert condition(cluster.get("Deployment", "llm"), "Progressing")["reason"] == "ProgressDeadlineExceeded"
    assert sorted(row["status"]["phase"] for row in cluster.pods()) == ["Pending", "Running"]


def test_a_crashing_container_backs_off_and_keeps_its_last_words(make_cluster):
    cluster = make_cluster("cpu:1")
    script = ["sh", "-c", "echo starting; echo boom; exit 3"]
    crash = container("busybox:1.37", command=script, terminationMessagePolicy="FallbackToLogsOnError")
    cluster.create(pod("p", crash))
    cluster.advance(60)
    status = cluster.pod("p")["status"]["containerStatuses"][0]
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["state"]["waiting"]["message"].startswith(
        "back-off 40s restarting failed container=main pod=p_default("
    )
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["lastState"]["terminated"]["message"] == "starting\nboom\n"
    assert status["restartCount"] == 3
    assert "boom" in cluster.log("p", previous=True)


def test_init_containers_run_one_after_the_other(make_cluster):
    cluster = make_cluster("cpu:1")
    first = container("busybox:1.37", name="first", command=["sh", "-c", "sleep 20"])
    cluster.create(pod("p", initContainers=[first, {**first, "name": "second"}]))
    cluster.advance(30)
    waiting = cluster.pod("p")["status"]["containerStatuses"][0]["state"]["waiting"]
    assert (cluster.pod("p")["status"]["phase"], waiting["reason"]) == ("Pending", "PodInitializing")
    cluster.advance(30)
    assert cluster.pod("p")["status"]["phase"] == "Running"


def test_a_missing_secret_stops_the_container_until_it_exists(make_cluster):
    cluster = make_cluster("cpu:1")
    reference = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf-token", "key": "token"}}}
    cluster.create(pod("p", container(env=[reference])))
    cluster.advance(5)
    waiting = cluster.pod("p")["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting == {"reason": "CreateContainerConfigError", "message": 'secret "hf-token" not found'}
    meta = {"name": "hf-token", "namespace": "default"}
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"token": "aGY="}})
    cluster.advance(20)
    assert cluster.pod("p")["status"]["phase"] == "Running"


def test_jobs_finish_whatever_their_restart_policy(make_cluster):
    cluster = make_cluster("cpu:2")
    cluster.create(job("hook", "echo done", restart="OnFailure"), job("twice", "true", completions=2, parallelism=2))
    cluster.create(job("bad", "exit 1", backoffLimit=1))
    cluster.advance(60)
    assert condition(cluster.get("Job", "hook"), "Complete")["status"] == "True"
    assert cluster.get("Job", "twice")["status"]["succeeded"] == 2
    assert condition(cluster.get("Job", "bad"), "Failed")["reason"] == "BackoffLimitExceeded"


def test_stateful_pods_come_in_order_with_their_own_claims(make_cluster):
    cluster = make_cluster("cpu:2")
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.create(workload("StatefulSet", "db", replicas=3, volumeClaimTemplates=[claim], serviceName="db"))
    cluster.advance(60)
    assert [row["metadata"]["name"] for row in cluster.pods()] == ["db-0", "db-1", "db-2"]
    assert cluster.get("PersistentVolumeClaim", "data-db-2")["status"]["phase"] == "Bound"
    assert cluster.get("StatefulSet", "db")["status"]["readyReplicas"] == 3


def test_daemon_pods_follow_labels_and_taints(make_cluster):
    cluster = make_cluster("cpu:2,a100x8:1")
    cluster.create(workload("DaemonSet", "agent"))
    cluster.advance(5)
    assert cluster.get("DaemonSet", "agent")["status"]["desiredNumberScheduled"] == 2
    cluster.store.update("Node", None, "cpu-1", lambda node: node["metadata"]["labels"].update(x="y"))

    def select(obj):
        obj["spec"]["template"]["spec"]["nodeSelector"] = {"x": "y"}

    cluster.store.update("DaemonSet", "default", "agent", select)
    cluster.advance(60)
    assert [row["spec"]["nodeName"] for row in cluster.pods()] == ["cpu-1"]


def test_services_publish_ready_pods_only(make_cluster):
    cluster = make_cluster("cpu:1")
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    probe = {"httpGet": {"path": "/", "port": 8080}, "initialDelaySeconds": 30}
    cluster.create(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
         "spec": {"selector": {"app": "web"}, "ports": ports, "type": "LoadBalancer"}},
        workload("Deployment", "web", container(ports=[{"containerPort": 8080}], readinessProbe=probe)),
    )  # fmt: skip
    cluster.advance(10)
    assert "notReadyAddresses" in cluster.get("Endpoints", "web")["subsets"][0]
    cluster.advance(40)
    address = cluster.pods()[0]["status"]["podIP"]
    assert cluster.get("Endpoints", "web")["subsets"][0]["addresses"][0]["ip"] == address
    assert cluster.get("EndpointSlice", "web-1")["endpoints"][0]["conditions"]["ready"] is True
    service = cluster.get("Service", "web")
    assert service["spec"]["clusterIP"]
    assert service["status"]["loadBalancer"]["ingress"][0]["ip"]


def test_pods_of_a_silent_node_move_after_the_toleration_and_go_when_it_returns(make_cluster):
    cluster = make_cluster("cpu:2")
    cluster.create(workload("Deployment", "web", replicas=2))
    cluster.advance(10)
    cluster.simulation.nodes.silence("cpu-1")
    cluster.advance(60)
    assert condition(cluster.node("cpu-1"), "Ready")["status"] == "Unknown"
    assert cluster.get("Deployment", "web")["status"]["readyReplicas"] == 1
    cluster.advance(320)
    assert cluster.get("Deployment", "web")["status"]["readyReplicas"] == 2
    assert any(row["metadata"].get("deletionTimestamp") for row in cluster.pods())
    cluster.simulation.nodes.restore("cpu-1")
    cluster.advance(10)
    assert len(cluster.pods()) == 2
    assert "taints" not in cluster.node("cpu-1")["spec"]


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet", "StatefulSet"])
def test_a_controller_tells_of_pods_that_are_refused_and_tries_again(kind, make_cluster):
    cluster = make_cluster("cpu:1", pod_security="baseline")
    cluster.create(workload(kind, "web", pod_spec={"hostPID": True}))
    cluster.advance(1)
    told = cluster.events("FailedCreate")[0]
    assert told.startswith('Error creating: pods "web-')
    assert told.endswith('is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)')
    if kind == "Deployment":
        assert f"Error creating: {condition(cluster.get(kind, 'web'), 'ReplicaFailure')['message']}" == told
    assert cluster.pods() == []
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    cluster.store.update("Namespace", None, "default", lambda obj: obj["metadata"].update(labels=labels))
    cluster.advance(10)
    assert [one["status"]["phase"] for one in cluster.pods()] == ["Running"]


def test_a_namespace_goes_with_its_pods(make_cluster):
    cluster = make_cluster("cpu:1")
    namespace(cluster, "models")
    cluster.create(workload("Deployment", "web", replicas=2, namespace="models"))
    cluster.advance(10)
    cluster.store.delete("Namespace", None, "models")
    cluster.advance(60)
    assert cluster.pods("models") == []
    assert cluster.store.find("Namespace", None, "models") is None


def test_a_thousand_nodes_and_pods_take_seconds(make_cluster):
    began = time.process_time()
    cluster = make_cluster("h100x8:500,cpu:500")
    started = time.process_time() - began
    cluster.create(workload("Deployment", "web", replicas=1000))
    cluster.advance(30)
    assert cluster.get("Deployment", "web")["status"]["readyReplicas"] == 1000
    # Generous bounds: 5,000 of each take about five times as long (see the benchmark).
    assert started < 10
    assert time.process_time() - began < 30
