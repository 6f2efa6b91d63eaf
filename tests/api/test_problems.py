"""Every error is a problem that says what to do and repeats nothing."""

import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from budcluster.api.errors import every_kind

CANARY = "canary-9f31c7"


def assert_problem(reply: httpx.Response, status: int, kind: str) -> dict[str, object]:
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    body: dict[str, object] = reply.json()
    assert body["type"] == kind
    assert body["status"] == status
    assert body["title"]
    assert body["request_id"] == reply.headers["X-Request-ID"]
    assert CANARY not in reply.text
    return body


async def test_an_unknown_path_is_a_problem(shared_client: httpx.AsyncClient) -> None:
    assert_problem(await shared_client.get("/nowhere"), 404, "about:blank")


async def test_a_wrong_method_is_a_problem_that_names_the_right_ones(shared_client: httpx.AsyncClient) -> None:
    reply = await shared_client.put("/clusters", json={})
    assert_problem(reply, 405, "about:blank")
    assert "GET" in reply.headers["Allow"]


async def test_wrong_values_are_listed_with_pointers_and_never_repeated(shared_client: httpx.AsyncClient) -> None:
    sent = {"name": f"{CANARY} x", "provider": CANARY, "labels": {"a": [CANARY]}, "region": 5}
    body = assert_problem(await shared_client.post("/clusters", json=sent), 422, "/problems/invalid")
    errors = body["errors"]
    assert isinstance(errors, list)
    assert {error["pointer"] for error in errors} == {"/name", "/provider", "/labels/a", "/region"}
    assert all(error["in"] == "body" and error["detail"] for error in errors)


async def test_a_body_that_is_no_json_is_a_bad_request(shared_client: httpx.AsyncClient) -> None:
    sent = f'{{"name": "{CANARY}'
    reply = await shared_client.post("/clusters", content=sent, headers={"Content-Type": "application/json"})
    assert_problem(reply, 400, "/problems/malformed-request")


async def test_json_nested_without_end_is_a_bad_request(shared_client: httpx.AsyncClient) -> None:
    reply = await shared_client.post("/clusters", content="[" * 200_000, headers={"Content-Type": "application/json"})
    assert_problem(reply, 400, "about:blank")


async def test_another_media_type_is_refused(shared_client: httpx.AsyncClient) -> None:
    reply = await shared_client.post("/clusters", content=f"name={CANARY}", headers={"Content-Type": "text/plain"})
    assert_problem(reply, 415, "/problems/unsupported-media-type")


async def test_a_missing_body_is_invalid(shared_client: httpx.AsyncClient) -> None:
    assert_problem(await shared_client.post("/clusters"), 422, "/problems/invalid")


async def test_a_body_of_ten_megabytes_is_refused_by_its_announced_length(shared_client: httpx.AsyncClient) -> None:
    reply = await shared_client.post("/clusters", json={"name": "a" * 10_000_000})
    body = assert_problem(reply, 413, "/problems/body-too-large")
    assert body["max_bytes"] == 2 * 1024 * 1024


async def test_a_body_without_announced_length_is_read_only_up_to_the_limit(shared_client: httpx.AsyncClient) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(160):
            sent += 65536
            yield b" " * 65536

    reply = await shared_client.post("/clusters", content=chunks(), headers={"Content-Type": "application/json"})
    assert_problem(reply, 413, "/problems/body-too-large")
    assert sent < 3 * 1024 * 1024


async def test_headers_without_end_are_refused(shared_client: httpx.AsyncClient) -> None:
    reply = await shared_client.get("/clusters", headers={"Cookie": CANARY * 10_000})
    assert_problem(reply, 431, "/problems/head-too-large")


async def test_an_unforeseen_error_shows_a_title_and_an_id_only(app: FastAPI, client: httpx.AsyncClient) -> None:
    async def broken() -> None:
        raise RuntimeError(CANARY)

    app.add_api_route("/broken", broken)
    body = assert_problem(await client.get("/broken"), 500, "about:blank")
    assert set(body) == {"type", "title", "status", "instance", "request_id"}


async def test_every_kind_of_problem_has_a_page_for_people_and_for_terminals(shared_client: httpx.AsyncClient) -> None:
    for kind in every_kind():
        assert kind.__doc__, f"{kind.__name__} has no docstring; it is the text of its page"
        html = await shared_client.get(f"/problems/{kind.slug()}", headers={"Accept": "text/html"})
        assert html.headers["Content-Type"].startswith("text/html")
        assert "default-src 'none'" in html.headers["Content-Security-Policy"]
        text = await shared_client.get(f"/problems/{kind.slug()}")
        assert text.headers["Content-Type"].startswith("text/plain")
        assert text.text.startswith(f"/problems/{kind.slug()} ({kind.status})")
    everything = await shared_client.get("/problems")
    assert everything.text.count("/problems/") >= len(every_kind())
    assert_problem(await shared_client.get("/problems/no-such-kind"), 404, "about:blank")


@pytest.mark.parametrize("accept", ["text/html", "*/*"])
async def test_the_documentation_needs_nothing_from_elsewhere(shared_client: httpx.AsyncClient, accept: str) -> None:
    page = await shared_client.get("/docs", headers={"Accept": accept})
    assert page.status_code == 200
    assert "/clusters/{cluster_id}" in page.text
    assert "src=" not in page.text
    assert not re.search(r"(href=[\"']?|url\([\"']?|@import [\"'])https?:", page.text)
    spec = await shared_client.get("/openapi.json")
    assert json.loads(spec.text)["info"]["title"] == "budcluster"
