"""What strangers and mistakes send: each gets an answer that explains the rule, and none reaches the database."""

from typing import Any

import httpx
import pytest

from tests.api.test_problems import assert_problem

GOOD: dict[str, Any] = {"name": "lab", "provider": "ON_PREMISES"}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"nmae": "typo"}, "/nmae"),
        ({"status": "READY"}, "/status"),
        ({"name": 5}, "/name"),
        ({"name": None}, "/name"),
        ({"name": ["lab"]}, "/name"),
        ({"provider": "on_premises"}, "/provider"),
        ({"provider": 1}, "/provider"),
        ({"origin": ""}, "/origin"),
        ({"region": "x" * 65}, "/region"),
        ({"region": ""}, "/region"),
        ({"region": "../../etc"}, "/region"),
        ({"labels": {"team": 5}}, "/labels/team"),
        ({"labels": {"team": "x" * 64}}, "/labels/team"),
        ({"labels": {"bad key": "x"}}, "/labels"),
        ({"labels": {f"k{n}": "v" for n in range(65)}}, "/labels"),
        ({"labels": ["team"]}, "/labels"),
    ],
)
async def test_a_wrong_field_is_named(shared_client: httpx.AsyncClient, change: dict[str, Any], pointer: str) -> None:
    body = assert_problem(await shared_client.post("/clusters", json={**GOOD, **change}), 422, "/problems/invalid")
    errors = body["errors"]
    assert isinstance(errors, list)
    assert pointer in [error["pointer"] for error in errors]


@pytest.mark.parametrize(
    "name",
    ["", "two words", "Großrechner", "x" * 300, "x" * 64, "UPPER", "-edge", "edge-", "a.b", "a_b", "a\n", "名前"],
)
async def test_a_name_that_kubernetes_would_not_take_is_refused_with_the_rule(
    shared_client: httpx.AsyncClient, name: str
) -> None:
    reply = await shared_client.post("/clusters", json={**GOOD, "name": name})
    body = assert_problem(reply, 422, "/problems/invalid")
    errors = body["errors"]
    assert isinstance(errors, list)
    assert "RFC 1123" in errors[0]["detail"]
    assert "63" in errors[0]["detail"]


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "a\\u0000b", "provider": "ON_PREMISES"}',
        '{"name": "ab", "provider": "ON_PREMISES", "labels": {"a": "\\u0000"}}',
        '{"name": "ab", "provider": "ON_PREMISES", "labels": {"\\u0000": "a"}}',
        '{"name": "ab", "provider": "ON_PREMISES", "region": "\\ud800"}',
        '{"name": "ab\\ud800", "provider": "ON_PREMISES"}',
    ],
)
async def test_text_that_no_database_stores_is_refused(shared_client: httpx.AsyncClient, body: str) -> None:
    reply = await shared_client.post("/clusters", content=body, headers={"Content-Type": "application/json"})
    assert_problem(reply, 422, "/problems/invalid")


@pytest.mark.parametrize("body", ["[]", "null", '"text"', "5", "true", "{}", "NaN", '{"name": NaN}'])
async def test_a_body_of_another_shape_is_invalid(shared_client: httpx.AsyncClient, body: str) -> None:
    reply = await shared_client.post("/clusters", content=body, headers={"Content-Type": "application/json"})
    assert_problem(reply, 422, "/problems/invalid")


async def test_bytes_that_are_no_text_are_refused(shared_client: httpx.AsyncClient) -> None:
    reply = await shared_client.post(
        "/clusters", content=b'{"name": "\xff\xfe"}', headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 400
    assert reply.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("identity", ["x", "1", "%00", "00000000-0000-0000-0000-00000000000g", "a" * 5000, "..%2f.."])
@pytest.mark.parametrize("collection", ["clusters", "deployments"])
async def test_a_malformed_id_is_refused(shared_client: httpx.AsyncClient, collection: str, identity: str) -> None:
    reply = await shared_client.get(f"/{collection}/{identity}")
    assert reply.status_code in {404, 422}
    assert reply.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=501", "limit=x", "limit=-1", "limit=1e3", f"limit={'9' * 5000}", "unknown=1"),
        *("sort=kubeconfig_encrypted", "sort=", "sort=--name", "provider=", "status=GONE", f"name={'x' * 64}"),
        *("name=%00", "label=nocolon", "label=%3Ax", "limit=5&limit=6;--", "status=" + "&status=".join(["READY"] * 9)),
    ],
)
async def test_a_query_that_no_list_has_is_refused(shared_client: httpx.AsyncClient, query: str) -> None:
    assert_problem(await shared_client.get(f"/clusters?{query}"), 422, "/problems/invalid")


@pytest.mark.parametrize("query", ["name=%FF%FE", "name=%ED%A0%80", "label=%F0%9F%92%A9:x", "name='%3B drop table"])
async def test_a_strange_but_legal_query_finds_nothing(shared_client: httpx.AsyncClient, query: str) -> None:
    reply = await shared_client.get(f"/clusters?{query}")
    assert reply.status_code == 200, reply.text
    assert reply.json()["items"] == []
