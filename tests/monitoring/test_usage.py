"""Usage comes from the best witness that answers, and says which."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from budcluster.cluster.errors import ClusterNotFound
from budcluster.hardware.models import AddonName, AddonOwner, ClusterAddon
from budcluster.kit.clock import SystemClock
from budcluster.kube.errors import NotFound
from budcluster.monitoring import devices, measurements
from budcluster.monitoring.devices import MeasuredGpu
from budcluster.monitoring.measurements import QUERIES, NotMeasured, read_vector
from budcluster.monitoring.prometheus_places import Place, find_places
from budcluster.monitoring.usage import Source, UsageService
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.hardware.nodes import hami, pod, sapphire_rapids
from tests.monitoring.fleet import Fleet, put, put_node, put_pod
from tests.monitoring.test_inventory import complete


def usages(fleet: Fleet, *, deadline_s: float = 5.0) -> UsageService:
    return UsageService(fleet.database, fleet.access, SystemClock(), deadline_s=deadline_s)


def vector(*values: str) -> bytes:
    result = [{"metric": {}, "value": [1790000000.0, value]} for value in values]
    return orjson.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def rows(*found: tuple[dict[str, str], str]) -> bytes:
    result = [{"metric": labels, "value": [1790000000.0, value]} for labels, value in found]
    return orjson.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


OURS = Place("monitoring", "kps-prometheus", 9090)
THEIRS = Place("observability", "prometheus-server", 80)
SUMS = dict(zip(QUERIES.values(), (vector("12.5"), vector("1e9"), vector("3.2"), vector()), strict=True))


class AskedPrometheus:
    """A cluster in which Prometheus stands at one place and knows these answers."""

    def __init__(self, answers: Mapping[str, bytes], *, place: Place = OURS) -> None:
        self._answers = answers
        self._place = place

    async def read(self, path: str) -> dict[str, Any]:
        raise NotFound(path)

    async def ask_service(
        self, namespace: str, service: str, path: str, *, port: str | int, params: Mapping[str, str] | None = None
    ) -> bytes:
        if Place(namespace, service, int(port)) != self._place:
            raise NotFound(f"services {service} not found")
        assert path == "api/v1/query"
        return self._answers[(params or {})["query"]]


async def test_prometheus_is_read_query_by_query() -> None:
    seen = await measurements.from_prometheus(AskedPrometheus(SUMS), [OURS], each_device=False)
    assert (seen.cpu_cores, seen.memory_bytes, seen.gpus, seen.gpu_memory_mib) == (12.5, 1e9, 3.2, None)
    assert (seen.witness, seen.devices) == ("monitoring/kps-prometheus", None)


async def test_a_prometheus_elsewhere_is_asked_when_the_first_is_none() -> None:
    seen = await measurements.from_prometheus(AskedPrometheus(SUMS, place=THEIRS), [OURS, THEIRS], each_device=False)
    assert (seen.cpu_cores, seen.witness) == (12.5, "observability/prometheus-server")


async def test_a_prometheus_without_nodes_is_no_witness() -> None:
    nothing = AskedPrometheus(dict.fromkeys(QUERIES.values(), vector()))
    with pytest.raises(NotMeasured, match=r"Prometheus \(monitoring/kps-prometheus\) does not measure the nodes"):
        await measurements.from_prometheus(nothing, [OURS], each_device=False)


async def test_each_gpu_is_told_by_dcgm_under_either_spelling_of_its_labels() -> None:
    utilization, used, free, xid = devices.QUERIES.values()
    answers = SUMS | {
        utilization: rows(
            (
                {"UUID": "GPU-a", "gpu": "0", "modelName": "NVIDIA A100-SXM4-80GB", "Hostname": "node-1",
                 "exported_namespace": "work", "exported_pod": "llm"},
                "97",
            ),
            ({"UUID": "GPU-b", "gpu": "1", "modelName": "Tesla T4", "hostname": "node-1"}, "0"),
        ),
        used: rows(({"UUID": "GPU-a"}, "70000"), ({"UUID": "GPU-b"}, "3")),
        free: rows(({"UUID": "GPU-a"}, "11000")),
        xid: rows(({"UUID": "GPU-a"}, "79")),
    }  # fmt: skip
    seen = await measurements.from_prometheus(AskedPrometheus(answers), [OURS], each_device=True)
    assert seen.devices == (
        MeasuredGpu("node-1", 0, "GPU-a", "NVIDIA-A100-SXM4-80GB", 97, 70000, 11000, 79, ("work/llm",)),
        MeasuredGpu("node-1", 1, "GPU-b", "Tesla-T4", 0, 3, None, None, ()),
    )


async def test_a_cluster_without_dcgm_lists_no_gpu() -> None:
    answers = SUMS | dict.fromkeys(devices.QUERIES.values(), vector())
    assert (await measurements.from_prometheus(AskedPrometheus(answers), [OURS], each_device=True)).devices is None


def _service(name: str, labels: dict[str, str], *ports: tuple[str, int]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"ports": [{"name": title, "port": port} for title, port in ports]},
    }


async def test_whatever_prometheus_is_there_is_found_by_its_service(fleet: Fleet, server: KubernetesServer) -> None:
    cluster_id = await fleet.add(server)
    chart = {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/instance": "metrics"}
    put(server, _service("alertmanager", {"app.kubernetes.io/name": "alertmanager"}, ("http", 9093)))
    put(server, _service("prometheus-operated", {"operated-prometheus": "true"}, ("grpc", 10901), ("http-web", 9090)))
    put(server, _service("metrics-server", chart, ("http", 80)))
    of_others = ClusterAddon(name=AddonName.PROMETHEUS, owner=AddonOwner.OTHER, release="metrics", namespace="default")
    own = ClusterAddon(name=AddonName.PROMETHEUS, owner=AddonOwner.OURS, release="kps", namespace="monitoring")
    async with fleet.access.open(cluster_id, operation="look") as door:
        assert await find_places(door.client, own) == (OURS,)
        operated, server_of_chart = (
            Place("default", "prometheus-operated", 9090),
            Place("default", "metrics-server", 80),
        )
        assert await find_places(door.client, of_others) == (server_of_chart, operated)
        assert set(await find_places(door.client, None)) == {operated, server_of_chart}
    with server.fault(Fault("forbidden", resources=("services",))):
        assert "Prometheus could not be looked for" in (await usages(fleet).of(cluster_id)).notes[0]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"status":"error"}', b'{"status":"success","data":{"result":[{}]}}']
)
def test_an_answer_that_is_not_prometheus_is_refused(body: bytes) -> None:
    with pytest.raises(NotMeasured):
        read_vector(body)


@pytest.mark.parametrize("value", ["NaN", "+Inf"])
def test_a_value_that_is_no_number_is_left_out(value: str) -> None:
    assert read_vector(vector(value)) == []


async def test_the_metrics_api_answers_where_prometheus_is_not(fleet: Fleet) -> None:
    with KubernetesServer(Options(nodes="cpu:2")) as server:
        usage = await usages(fleet).of(await fleet.add(server))
    assert usage.source is Source.METRICS_SERVER
    assert usage.cpu_cores.used is not None
    assert usage.cpu_cores.used > 0
    assert usage.notes == ("No Prometheus was found.",)


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
