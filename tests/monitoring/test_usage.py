"""Usage comes from the best witness that answers, and says which."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from budcluster.cluster.errors import ClusterNotFound
from budcluster.kit.clock import SystemClock
from budcluster.kube.errors import NotFound
from budcluster.monitoring import measurements
from budcluster.monitoring.measurements import QUERIES, NotMeasured, read_value
from budcluster.monitoring.usage import Source, UsageService
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.hardware.nodes import hami, pod, sapphire_rapids
from tests.monitoring.fleet import Fleet, put_node, put_pod
from tests.monitoring.test_inventory import complete


def usages(fleet: Fleet, *, deadline_s: float = 5.0) -> UsageService:
    return UsageService(fleet.database, fleet.access, SystemClock(), deadline_s=deadline_s)


def vector(*values: str) -> bytes:
    result = [{"metric": {}, "value": [1790000000.0, value]} for value in values]
    return orjson.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


class AskedPrometheus:
    """A cluster whose Prometheus knows these answers."""

    def __init__(self, answers: Mapping[str, bytes]) -> None:
        self._answers = answers

    async def read(self, path: str) -> dict[str, Any]:
        raise NotFound(path)

    async def ask_service(
        self, namespace: str, service: str, path: str, *, port: str | int, params: Mapping[str, str] | None = None
    ) -> bytes:
        assert (namespace, service, path, port) == ("monitoring", "kps-prometheus", "api/v1/query", 9090)
        return self._answers[(params or {})["query"]]


async def test_prometheus_is_read_query_by_query() -> None:
    answers = dict(zip(QUERIES.values(), (vector("12.5"), vector("1e9"), vector("3.2"), vector()), strict=True))
    seen = await measurements.from_prometheus(AskedPrometheus(answers))
    assert (seen.cpu_cores, seen.memory_bytes, seen.gpus, seen.gpu_memory_mib) == (12.5, 1e9, 3.2, None)


async def test_a_prometheus_without_nodes_is_no_witness() -> None:
    with pytest.raises(NotMeasured):
        await measurements.from_prometheus(AskedPrometheus(dict.fromkeys(QUERIES.values(), vector())))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"status":"error"}', b'{"status":"success","data":{"result":[{}]}}']
)
def test_an_answer_that_is_not_prometheus_is_refused(body: bytes) -> None:
    with pytest.raises(NotMeasured):
        read_value(body)


@pytest.mark.parametrize("value", ["NaN", "+Inf"])
def test_a_value_that_is_no_number_is_none(value: str) -> None:
    assert read_value(vector(value)) is None


async def test_the_metrics_api_answers_where_prometheus_is_not(fleet: Fleet) -> None:
    with KubernetesServer(Options(nodes="cpu:2")) as server:
        usage = await usages(fleet).of(await fleet.add(server))
    assert usage.source is Source.METRICS_SERVER
    assert usage.cpu_cores.used is not None
    assert usage.cpu_cores.used > 0
    assert "Prometheus could not be asked" in usage.notes[0]


async def test_requests_alone_are_told_when_nobody_measures(fleet: Fleet, server: KubernetesServer) -> None:
    name = put_node(server, hami())
    held = pod(hami(), "llm", allocated="GPU-0,NVIDIA,20480,30:;", nvidia_com__gpu="1", cpu="1500m", memory="2Gi")
    put_pod(server, held, node=name)
    put_node(server, sapphire_rapids(), name="cpu-1")
    cluster_id = await fleet.add(server)
    async with fleet.watching():
        await complete(fleet, cluster_id)
    usage = await usages(fleet).of(cluster_id)
    assert usage.source is Source.REQUESTS
    assert usage.as_of is not None
    assert (usage.cpu_cores.requested, usage.cpu_cores.used, usage.cpu_cores.allocatable) == (1.5, None, 2 * 95.69)
    assert usage.memory_bytes.requested == 2 << 30
    assert (usage.gpus.requested, usage.gpus.allocatable) == (1, 20)
    assert (usage.gpu_memory_mib.requested, usage.gpu_memory_mib.allocatable) == (20480, 2 * 81920)


async def test_a_cluster_that_does_not_answer_in_time_costs_no_more_than_the_deadline(
    fleet: Fleet, server: KubernetesServer
) -> None:
    cluster_id = await fleet.add(server)
    with server.fault(Fault("latency", seconds=10)):
        usage = await usages(fleet, deadline_s=0.2).of(cluster_id)
    assert usage.notes == ("The cluster did not answer within 0.2 s.",)


async def test_an_answer_is_given_again_for_a_while(fleet: Fleet, server: KubernetesServer) -> None:
    service, cluster_id = usages(fleet), await fleet.add(server)
    assert await service.of(cluster_id) is await service.of(cluster_id)


async def test_a_cluster_that_is_not_there_is_told(fleet: Fleet) -> None:
    with pytest.raises(ClusterNotFound):
        await usages(fleet).of(uuid4())


async def test_the_route_answers_for_a_cluster_that_is_gone(
    client: httpx.AsyncClient, fleet: Fleet, server: KubernetesServer
) -> None:
    cluster_id = await fleet.add(server)
    server.be_gone(60)
    answer = await client.get(f"/clusters/{cluster_id}/usage")
    assert answer.status_code == 200
    assert answer.json()["source"] == "requests"
    assert answer.json()["notes"]
