"""Nodes, GPUs, hardware and add-ons from outside."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import inspect, text, update

from budcluster.cluster.activities import as_json
from budcluster.cluster.models import Cluster
from budcluster.hardware.models import AddonName, AddonOwner, AddonState, ClusterAddon
from budcluster.hardware.reading.reader import read_cluster, summarize
from budcluster.hardware.survey import survey
from sandbox.kubernetes.server import KubernetesServer
from tests.hardware.nodes import a100x8, hami, pod, sapphire_rapids
from tests.monitoring.fleet import Fleet, put_node, put_pod
from tests.monitoring.test_inventory import complete, nodes_of

Get = Any


@pytest.fixture
async def cluster_id(fleet: Fleet, server: KubernetesServer) -> UUID:
    """A cluster with two A100 shared by HAMi, eight plain ones, and two nodes without; fully read."""
    shared = put_node(server, hami(), name="gpu-shared")
    put_node(server, a100x8(), name="gpu-whole")
    cordoned = sapphire_rapids()
    cordoned["spec"]["unschedulable"] = True
    put_node(server, cordoned, name="cpu-1")
    put_node(server, sapphire_rapids(), name="cpu-2")
    held = pod(hami(), "llm", allocated="GPU-0,NVIDIA,20480,30:;", nvidia_com__gpu="1")
    put_pod(server, held, node=shared)
    put_pod(server, pod(a100x8(), "train", nvidia_com__gpu="3"), node="gpu-whole")
    cluster_id = await fleet.add(server)
    async with fleet.watching():
        await complete(fleet, cluster_id)
    return cluster_id


async def all_of(client: httpx.AsyncClient, path: str, **query: str | int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    while True:
        answer = await client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        if (cursor := answer.json()["next_cursor"]) is None:
            return items
        query["cursor"] = cursor


async def test_nodes_page_by_name_and_say_how_fresh_they_are(client: httpx.AsyncClient, cluster_id: UUID) -> None:
    nodes = await all_of(client, f"/clusters/{cluster_id}/nodes", limit=1)
    assert [node["name"] for node in nodes] == ["cpu-1", "cpu-2", "gpu-shared", "gpu-whole"]
    answer = (await client.get(f"/clusters/{cluster_id}/nodes")).json()
    assert answer["as_of"] is not None
    assert answer["stale_because"] is None


async def test_nodes_filter_by_what_people_look_for(client: httpx.AsyncClient, cluster_id: UUID) -> None:
    path = f"/clusters/{cluster_id}/nodes"

    async def names(**query: str) -> list[str]:
        return [node["name"] for node in await all_of(client, path, **query)]

    assert await names(schedulable="false") == ["cpu-1"]
    assert await names(gpu_model="NVIDIA-A100-SXM4-80GB") == ["gpu-shared", "gpu-whole"]
    assert await names(name_prefix="cpu-", sort="-name") == ["cpu-2", "cpu-1"]
    assert await names(name_prefix="%") == []
    assert await names(ready="false") == []
    assert (await client.get(path, params={"colour": "red"})).status_code == 422


async def test_each_gpu_is_listed_once_with_what_is_free_of_it(client: httpx.AsyncClient, cluster_id: UUID) -> None:
    gpus = await all_of(client, f"/clusters/{cluster_id}/gpus", limit=3)
    assert [(gpu["node"], gpu["position"]) for gpu in gpus] == [
        ("gpu-shared", 0),
        ("gpu-shared", 1),
        *(("gpu-whole", position) for position in range(8)),
    ]
    shared = gpus[0]["gpu"]
    assert shared["free_memory_mib"] == 81920 - 20480
    assert shared["used_by"] == [
        {"namespace": "default", "pod": "llm", "memory_mib": 20480, "cores_percent": 30},
    ]
    assert (gpus[2]["gpu"]["used_by"], gpus[2]["pool_used_by"]) == (
        None,
        [{"namespace": "default", "pod": "train", "count": 3}],
    )
    only = await all_of(client, f"/clusters/{cluster_id}/gpus", node="gpu-shared")
    assert len(only) == 2


async def test_a_cursor_of_another_cluster_is_refused(
    client: httpx.AsyncClient, fleet: Fleet, cluster_id: UUID
) -> None:
    page = await client.get(f"/clusters/{cluster_id}/nodes", params={"limit": 1})
    async with fleet.database.writing() as session:
        other = Cluster(name="other", provider="ON_PREMISES", origin="ADOPTED", status="READY")
        session.add(other)
    foreign = await client.get(f"/clusters/{other.id}/nodes", params={"limit": 1, "cursor": page.json()["next_cursor"]})
    assert foreign.status_code == 400 or foreign.status_code == 422
    assert foreign.json()["type"] == "/problems/invalid-cursor"


async def test_hardware_tells_what_was_detected_and_what_is_there_now(
    client: httpx.AsyncClient, fleet: Fleet, cluster_id: UUID
) -> None:
    refused = await client.get(f"/clusters/{cluster_id}/hardware")
    assert refused.status_code == 409
    assert refused.json()["type"] == "/problems/hardware-not-detected"
    profile = as_json(read_cluster([a100x8(), hami()]))
    async with fleet.database.writing() as session:
        seen = {"hardware_profile": profile, "hardware_detected_at": text("now()")}
        await session.execute(update(Cluster).where(Cluster.id == cluster_id).values(**seen))
    answer = (await client.get(f"/clusters/{cluster_id}/hardware")).json()
    assert answer["detected"]["gpus"] == 10
    assert answer["now"]["nodes"] == 4
    assert answer["now"]["nodes_schedulable"] == 3
    assert [(model["physical"], model["healthy"]) for model in answer["now"]["by_model"]] == [(10, 9)]


async def test_a_survey_finds_what_the_inventory_finds(
    fleet: Fleet, server: KubernetesServer, cluster_id: UUID
) -> None:
    async with fleet.access.open(cluster_id, operation="look") as door:
        surveyed = await survey(door.client)
    kept = await nodes_of(fleet, cluster_id)()
    assert {node.name: node for node in surveyed.nodes} == kept
    assert surveyed.summary == summarize(tuple(kept.values()))
    assert surveyed.gaps == (
        "Node Feature Discovery's objects cannot be read; devices were counted from labels and resources",
    )


async def test_the_profile_of_thousands_of_nodes_is_loaded_by_nobody_who_does_not_ask(
    fleet: Fleet, cluster_id: UUID
) -> None:
    async with fleet.database.reading() as session:
        cluster = await session.get(Cluster, cluster_id)
    assert "hardware_profile" in inspect(cluster).unloaded


async def test_add_ons_are_listed_with_their_owner(client: httpx.AsyncClient, fleet: Fleet, cluster_id: UUID) -> None:
    async with fleet.database.writing() as session:
        session.add(
            ClusterAddon(cluster_id=cluster_id, name=AddonName.NFD, owner=AddonOwner.OTHER, state=AddonState.READY)
        )
    (addon,) = (await client.get(f"/clusters/{cluster_id}/addons")).json()["items"]
    assert (addon["name"], addon["owner"], addon["state"]) == ("nfd", "OTHER", "READY")


@pytest.mark.parametrize("path", ["nodes", "gpus", "hardware", "addons"])
async def test_a_cluster_that_is_not_there_is_a_problem(shared_client: httpx.AsyncClient, path: str) -> None:
    answer = await shared_client.get(f"/clusters/{uuid4()}/{path}")
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/cluster-not-found"
