"""Things that go wrong on demand, and what exporters say meanwhile."""

from __future__ import annotations

from urllib.parse import urlencode

import orjson
import pytest

from sandbox.kubernetes.errors import BadRequest
from tests.sandbox.simulation.objects import container, pod, workload
from tests.sandbox.simulation.releases import install_gpu_operator, install_nfd

TOLERANT = [{"operator": "Exists"}]


@pytest.fixture
def serving(make_cluster):
    """A cluster with one model served on an L4."""
    cluster = make_cluster("l4:1,cpu:1")
    install_nfd(cluster)
    install_gpu_operator(cluster)
    limits = {"nvidia.com/gpu": "1", "memory": "16Gi"}
    args = ["Qwen/Qwen3-0.6B", "--port", "8000"]
    cluster.create(pod("llm", container("vllm/vllm-openai:v0.33.0", limits=limits, args=args), tolerations=TOLERANT))
    cluster.advance(600)
    return cluster


def terminated(cluster):
    status = cluster.pod("llm")["status"]["containerStatuses"][0]
    return (status["lastState"] or status["state"])["terminated"]


def test_a_lost_gpu_crashes_its_pod_and_shrinks_the_node(serving):
    serving.simulation.inject("gpu_lost", node="l4-1", index=0)
    serving.advance(2)
    assert "has fallen off the bus" in serving.log("llm", previous=True)
    assert serving.node("l4-1")["status"]["allocatable"]["nvidia.com/gpu"] == "0"


def test_a_pod_can_be_killed_for_memory(serving):
    serving.simulation.inject("pod_oom", pod="llm")
    serving.advance(5)
    assert (terminated(serving)["reason"], terminated(serving)["exitCode"]) == ("OOMKilled", 137)


def test_a_cuda_error_is_the_last_word_of_a_crash(serving):
    serving.simulation.inject("log_error", pod="llm", kind="cuda")
    serving.advance(5)
    assert "illegal memory access" in serving.log("llm", previous=True)


def test_a_closed_model_and_a_missing_image_stop_what_starts_later(serving):
    serving.simulation.inject("gated_model", model="Qwen/Qwen3-0.6B")
    serving.simulation.inject("pod_crash", pod="llm")
    serving.advance(60)
    assert "You are trying to access a gated repo." in serving.log("llm", previous=True)
    serving.simulation.inject("image_missing", image="redis:*")
    serving.create(pod("cache", container("redis:8")))
    serving.advance(20)
    waiting = serving.pod("cache")["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] in ("ErrImagePull", "ImagePullBackOff")


def test_unknown_faults_and_targets_are_refused(serving):
    with pytest.raises(BadRequest, match="known ones: gated_model"):
        serving.simulation.inject("earthquake")
    with pytest.raises(BadRequest, match="there is no"):
        serving.simulation.inject("node_not_ready", node="nowhere")
    with pytest.raises(BadRequest, match="unexpected keyword"):
        serving.simulation.inject("pod_oom", pod="llm", colour="red")


async def query(cluster, expression):
    worker = next(one for one in cluster.pods() if one["metadata"]["name"].startswith("prometheus"))
    reply = await cluster.simulation.kubelets.proxy(
        "default", worker, "9090", "GET", "/api/v1/query", urlencode({"query": expression}), {}, b""
    )
    return orjson.loads(reply.body)["data"]["result"]


async def test_prometheus_answers_known_expressions_and_nothing_else(serving):
    serving.create(
        workload("StatefulSet", "prometheus", container("quay.io/prometheus/prometheus:v3.8.0")),
        workload("DaemonSet", "node-exporter", container("quay.io/prometheus/node-exporter:v1.10.2")),
    )
    serving.advance(30)
    busy = await query(serving, "avg(DCGM_FI_DEV_GPU_UTIL)")
    assert 10 < float(busy[0]["value"][1]) <= 100
    rows = await query(serving, "DCGM_FI_DEV_FB_USED")
    assert rows[0]["metric"]["exported_pod"] == "llm"
    memory = "100 * (1 - sum(node_memory_MemAvailable_bytes) / sum(node_memory_MemTotal_bytes))"
    assert 0 < float((await query(serving, memory))[0]["value"][1]) < 100
    total = "sum(node_memory_MemTotal_bytes) - sum(node_memory_MemAvailable_bytes)"
    assert float((await query(serving, total))[0]["value"][1]) > 1024**3
    whole = float((await query(serving, "sum(DCGM_FI_DEV_GPU_UTIL)"))[0]["value"][1])
    assert float((await query(serving, "sum(DCGM_FI_DEV_GPU_UTIL) / 100"))[0]["value"][1]) * 100 == whole
    assert await query(serving, 'sum(vllm:num_requests_running{namespace="default"})')
    assert await query(serving, "no_such_metric") == []
