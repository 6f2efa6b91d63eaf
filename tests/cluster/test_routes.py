"""`/clusters` from outside."""

import asyncio
from uuid import uuid4

import httpx

LAB = {"name": "berlin-lab", "provider": "ON_PREMISES", "region": "berlin", "labels": {"team": "search"}}


async def test_a_registered_cluster_is_found_under_its_location(client: httpx.AsyncClient) -> None:
    made = await client.post("/clusters", json=LAB)
    assert made.status_code == 201, made.text
    assert made.json()["status"] == "PROVISIONING"
    assert made.json()["origin"] == "ADOPTED"
    found = await client.get(made.headers["Location"])
    assert found.json() == made.json()
    assert found.headers["ETag"] == made.headers["ETag"] == '"1"'


async def test_a_registration_leaves_its_mark_in_the_audit_trail(client: httpx.AsyncClient) -> None:
    made = await client.post("/clusters", json=LAB)
    refused = await client.post("/clusters", json=LAB)
    assert refused.status_code == 409
    (event,) = (await client.get("/audit?action=cluster.registered")).json()["items"]
    assert (event["actor"], event["subject_id"]) == ("anonymous", made.json()["id"])
    assert event["request_id"] == made.headers["X-Request-ID"]


async def test_an_existing_cloud_cluster_is_adopted_when_it_says_so(client: httpx.AsyncClient) -> None:
    made = await client.post("/clusters", json={"name": "prod", "provider": "AWS_EKS", "origin": "ADOPTED"})
    assert made.status_code == 201
    assert made.json()["provider"] == "AWS_EKS"


async def test_provisioning_is_refused_with_the_reason_when_this_version_cannot(client: httpx.AsyncClient) -> None:
    reply = await client.post("/clusters", json={"name": "prod", "provider": "AWS_EKS"})
    assert reply.status_code == 422
    assert reply.json()["type"] == "/problems/provisioning-not-available"
    assert (await client.get("/clusters")).json()["items"] == []


async def test_exactly_one_wins_when_many_register_one_name_at_once(client: httpx.AsyncClient) -> None:
    replies = await asyncio.gather(*(client.post("/clusters", json=LAB) for _ in range(12)))
    won = [reply for reply in replies if reply.status_code == 201]
    lost = [reply for reply in replies if reply.status_code == 409]
    assert (len(won), len(lost)) == (1, 11)
    assert {reply.json()["cluster_id"] for reply in lost} == {won[0].json()["id"]}
    assert lost[0].json()["type"] == "/problems/cluster-name-taken"


async def test_a_cluster_that_is_not_there_is_a_problem(client: httpx.AsyncClient) -> None:
    reply = await client.get(f"/clusters/{uuid4()}")
    assert reply.status_code == 404
    assert reply.json()["type"] == "/problems/cluster-not-found"


async def test_lists_filter_by_field_and_by_label(client: httpx.AsyncClient) -> None:
    await client.post("/clusters", json=LAB)
    await client.post("/clusters", json={"name": "other", "provider": "AZURE_AKS", "origin": "ADOPTED"})

    async def names(query: str) -> list[str]:
        reply = await client.get(f"/clusters?{query}")
        assert reply.status_code == 200, reply.text
        return [item["name"] for item in reply.json()["items"]]

    assert await names("provider=AZURE_AKS") == ["other"]
    assert await names("label=team:search") == ["berlin-lab"]
    assert await names("status=READY&status=ERROR") == []
    assert await names("status=PROVISIONING&sort=name") == ["berlin-lab", "other"]
    assert await names("name=other&health=UNKNOWN") == ["other"]
    assert await names("label=team:search&label=tier:gold") == []
