"""Lists page by key: complete, without doubles, and only with their own cursors."""

import base64

import httpx
import pytest

from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.kit.database import Database
from tests.api.test_problems import assert_problem

MANY = 2_000


@pytest.fixture
async def many(database: Database) -> None:
    async with database.writing() as session:
        session.add_all(
            Cluster(
                name=f"cluster-{n:04}",
                provider=ClusterProvider.AWS_EKS if n % 2 else ClusterProvider.ON_PREMISES,
                origin=ClusterOrigin.ADOPTED,
                status=ClusterStatus.READY,
                labels={"shard": str(n % 10)},
            )
            for n in range(MANY)
        )


async def walk(client: httpx.AsyncClient, query: str) -> list[list[str]]:
    pages, cursor = [], ""
    while True:
        reply = await client.get(f"/clusters?{query}{cursor}")
        assert reply.status_code == 200, reply.text
        pages.append([item["name"] for item in reply.json()["items"]])
        if reply.json()["next_cursor"] is None:
            return pages
        cursor = f"&cursor={reply.json()['next_cursor']}"


# Rows of one transaction share their created_at, so sorting by it also proves that the id breaks ties.
@pytest.mark.parametrize("sort", ["name", "-name", "created_at", "-created_at"])
@pytest.mark.usefixtures("many")
async def test_pages_show_every_row_once(client: httpx.AsyncClient, sort: str) -> None:
    pages = await walk(client, f"limit=333&sort={sort}")
    assert [len(page) for page in pages] == [333] * 6 + [2]
    names = [name for page in pages for name in page]
    assert len(set(names)) == MANY
    if sort.endswith("name"):
        assert names == sorted(names, reverse=sort.startswith("-"))


@pytest.mark.usefixtures("many")
async def test_filters_hold_across_pages(client: httpx.AsyncClient) -> None:
    pages = await walk(client, "limit=50&sort=name&provider=AWS_EKS&label=shard:3")
    names = [name for page in pages for name in page]
    assert names == [f"cluster-{n:04}" for n in range(3, MANY, 10)]


@pytest.mark.usefixtures("many")
async def test_fifty_rows_are_given_when_no_limit_is(client: httpx.AsyncClient) -> None:
    assert len((await client.get("/clusters")).json()["items"]) == 50


@pytest.mark.usefixtures("many")
async def test_a_cursor_serves_only_the_list_it_came_from(client: httpx.AsyncClient) -> None:
    cursor = (await client.get("/clusters?sort=name&limit=5")).json()["next_cursor"]
    raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    raw[-3] ^= 1
    damaged = base64.urlsafe_b64encode(bytes(raw)).decode()
    for query in (
        f"sort=-name&cursor={cursor}",
        f"sort=name&provider=AWS_EKS&cursor={cursor}",
        f"sort=name&cursor={damaged}",
        f"sort=name&cursor={cursor[:10]}",
        "sort=name&cursor=%25",
        "sort=name&cursor=",
        "sort=name&cursor=null",
        "sort=name&cursor=W10",
    ):
        assert_problem(await client.get(f"/clusters?{query}"), 422, "/problems/invalid-cursor")
    other = await client.get(f"/deployments?sort=name&cursor={cursor}")
    assert_problem(other, 422, "/problems/invalid-cursor")
    page = await client.get(f"/clusters?sort=name&limit=2&cursor={cursor}")
    assert [item["name"] for item in page.json()["items"]] == ["cluster-0005", "cluster-0006"]


async def test_rows_added_between_pages_neither_repeat_nor_hide_others(client: httpx.AsyncClient) -> None:
    async def register(name: str) -> None:
        assert (await client.post("/clusters", json={"name": name, "provider": "ON_PREMISES"})).status_code == 201

    for name in ("b", "d", "f", "h"):
        await register(name)
    first = (await client.get("/clusters?sort=name&limit=2")).json()
    await register("a")
    await register("e")
    second = (await client.get(f"/clusters?sort=name&limit=9&cursor={first['next_cursor']}")).json()
    assert [item["name"] for item in first["items"] + second["items"]] == ["b", "d", "e", "f", "h"]
