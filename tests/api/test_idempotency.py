"""A creating request that is repeated gets the first one's answer, and never a second cluster."""

import asyncio

import httpx
import pytest
from sqlalchemy import func, select, text, update

from budcluster.api.models import IdempotencyKey
from budcluster.cluster.models import Cluster
from budcluster.kit.database import Database
from tests.api.test_problems import assert_problem

LAB = {"name": "lab", "provider": "ON_PREMISES"}
KEY = {"Idempotency-Key": "5f3a1c0e"}


async def count(database: Database, kind: type) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(kind)) or 0


async def test_the_same_request_gets_the_same_answer(client: httpx.AsyncClient, database: Database) -> None:
    first = await client.post("/clusters", json=LAB, headers=KEY)
    second = await client.post("/clusters", json=LAB, headers=KEY)
    assert first.status_code == second.status_code == 201
    assert first.content == second.content
    for name in ("Location", "ETag", "Content-Type"):
        assert first.headers[name] == second.headers[name]
    assert second.headers["Idempotent-Replay"] == "true"
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert await count(database, Cluster) == 1


async def test_another_body_under_the_same_key_is_refused(client: httpx.AsyncClient) -> None:
    await client.post("/clusters", json=LAB, headers=KEY)
    reply = await client.post("/clusters", json={**LAB, "region": "berlin"}, headers=KEY)
    assert_problem(reply, 409, "/problems/idempotency-key-reused")


async def test_requests_at_once_make_one_cluster_and_get_one_answer(
    client: httpx.AsyncClient, database: Database
) -> None:
    replies = await asyncio.gather(*(client.post("/clusters", json=LAB, headers=KEY) for _ in range(10)))
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.content for reply in replies}) == 1
    assert await count(database, Cluster) == 1


async def test_a_repetition_is_told_to_wait_when_the_first_takes_long(
    client: httpx.AsyncClient, database: Database
) -> None:
    async with database.writing() as other:
        row = IdempotencyKey(actor="anonymous", key=KEY["Idempotency-Key"], request_digest=b"", headers={})
        other.add(row)
        await other.flush()
        reply = await client.post("/clusters", json=LAB, headers=KEY)
        assert_problem(reply, 409, "/problems/request-in-progress")
        assert reply.headers["Retry-After"] == "2"
        await other.delete(row)
    assert (await client.post("/clusters", json=LAB, headers=KEY)).status_code == 201


async def test_an_answer_that_was_an_error_is_not_remembered(client: httpx.AsyncClient, database: Database) -> None:
    refused = await client.post("/clusters", json={**LAB, "name": "No"}, headers=KEY)
    assert refused.status_code == 422
    assert await count(database, IdempotencyKey) == 0
    assert (await client.post("/clusters", json=LAB, headers=KEY)).status_code == 201


async def test_a_crash_before_the_commit_leaves_neither_change_nor_claim(
    client: httpx.AsyncClient, database: Database
) -> None:
    # A constraint that is checked at commit stands for whatever may go wrong at the last instruction.
    async with database.writing() as session:
        await session.execute(
            text(
                "create function refuse() returns trigger language plpgsql as "
                "$$ begin raise exception 'the last instruction failed'; end $$"
            )
        )
        await session.execute(
            text(
                "create constraint trigger last_moment after insert on clusters deferrable initially deferred "
                "for each row execute function refuse()"
            )
        )
    assert (await client.post("/clusters", json=LAB, headers=KEY)).status_code == 500
    assert await count(database, Cluster) == await count(database, IdempotencyKey) == 0
    async with database.writing() as session:
        await session.execute(text("drop trigger last_moment on clusters"))
    assert (await client.post("/clusters", json=LAB, headers=KEY)).status_code == 201


async def test_a_key_is_free_again_after_a_day(client: httpx.AsyncClient, database: Database) -> None:
    await client.post("/clusters", json=LAB, headers=KEY)
    async with database.writing() as session:
        long_ago = text("now() - interval '25 hours'")
        await session.execute(update(IdempotencyKey).values(created_at=long_ago))
    reply = await client.post("/clusters", json={**LAB, "name": "other"}, headers=KEY)
    assert reply.status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "ü"])
async def test_a_strange_key_is_refused(client: httpx.AsyncClient, key: str) -> None:
    reply = await client.post("/clusters", json=LAB, headers={b"Idempotency-Key": key.encode()})
    assert_problem(reply, 400, "/problems/malformed-request")
