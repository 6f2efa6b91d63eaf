"""`/operations` from outside."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import delete, update

from budcluster.api.sse import HEARTBEAT, with_heartbeats
from budcluster.bootstrap import Service
from budcluster.kit.database import Database
from budcluster.operations.causes import Cause
from budcluster.operations.feeds import Feeds
from budcluster.operations.models import OperationEvent, OperationStatus, OperationStep, StepStatus
from budcluster.operations.notices import Notices
from tests.operations.desk import Desk, cluster, eventually, payload_of

FAILURE = Cause(type="quota-exceeded", detail="No more GPUs.", next_step="Ask for quota.", step="apply_terraform")


async def test_an_operation_shows_all_its_steps(client: httpx.AsyncClient, desk: Desk) -> None:
    operation = await desk.request(cluster("berlin-lab"))
    shown = (await client.get(f"/operations/{operation.id}")).json()
    assert shown["subject"] == {"type": "cluster", "id": str(operation.subject_id), "name": "berlin-lab"}
    assert [(step["name"], step["status"]) for step in shown["steps"]] == [
        ("apply_terraform", "PENDING"),
        ("store_kubeconfig", "PENDING"),
    ]
    assert shown["eta"] is None


async def test_an_operation_that_is_not_there_is_a_problem(client: httpx.AsyncClient) -> None:
    for path in ("", "/events", "/logs"):
        reply = await client.get(f"/operations/{uuid4()}{path}")
        assert (reply.status_code, reply.json()["type"]) == (404, "/problems/operation-not-found")


async def test_lists_filter_and_page(client: httpx.AsyncClient, desk: Desk) -> None:
    ours = cluster()
    first = await desk.request(ours)
    await desk.finish(first.id, OperationStatus.FAILED, error=FAILURE)
    second = await desk.request(ours, kind="delete_cluster")
    await desk.request(cluster())

    async def ids(query: str) -> list[str]:
        reply = await client.get(f"/operations?{query}")
        assert reply.status_code == 200, reply.text
        return [item["id"] for item in reply.json()["items"]]

    assert await ids(f"subject_id={ours.id}&subject_type=cluster") == [str(second.id), str(first.id)]
    assert await ids("status=FAILED&status=CANCELLED") == [str(first.id)]
    assert await ids("kind=delete_cluster") == [str(second.id)]
    page = (await client.get("/operations?limit=2")).json()
    rest = (await client.get(f"/operations?limit=2&cursor={page['next_cursor']}")).json()
    assert (len(page["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)


async def test_cancel_and_retry_over_http(client: httpx.AsyncClient, desk: Desk) -> None:
    operation = await desk.request()
    for _ in range(2):
        reply = await client.post(f"/operations/{operation.id}/cancel")
        assert (reply.status_code, reply.json()["status"]) == (202, "CANCELLING")
    refused = await client.post(f"/operations/{operation.id}/retry")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/operation-not-retryable")
    await desk.finish(operation.id, OperationStatus.CANCELLED)
    retried = await client.post(f"/operations/{operation.id}/retry")
    assert (retried.status_code, retried.json()["attempt"]) == (202, 2)
    await desk.finish(operation.id)
    late = await client.post(f"/operations/{operation.id}/cancel")
    assert (late.status_code, late.json()["type"]) == (409, "/problems/operation-not-cancelable")


async def test_only_what_a_retry_would_go_on_with_is_called_retryable(client: httpx.AsyncClient, desk: Desk) -> None:
    ours = cluster()
    old = await desk.request(ours)
    await desk.finish(old.id, OperationStatus.FAILED, error=FAILURE)
    beside = await desk.request(ours, kind="detect_hardware", exclusive=False)
    assert (await client.get(f"/operations/{old.id}")).json()["retryable"]
    new = await desk.request(ours)
    await desk.request(cluster())

    listed = (await client.get(f"/operations?subject_id={ours.id}")).json()["items"]
    assert {item["id"]: item["retryable"] for item in listed} == {
        str(old.id): False, str(beside.id): True, str(new.id): True
    }  # fmt: skip
    assert not (await client.get(f"/operations/{old.id}")).json()["retryable"]
    assert (await client.post(f"/operations/{new.id}/cancel")).json()["retryable"]


async def test_log_lines_page_and_filter_by_step(client: httpx.AsyncClient, desk: Desk) -> None:
    operation = await desk.request()
    journal = desk.journals.of(payload_of(operation))
    for name in ("apply_terraform", "store_kubeconfig"):
        async with journal.step(name) as step:
            for number in range(5):
                step.log(f"{name} {number}")
    path = f"/operations/{operation.id}/logs"
    page = (await client.get(f"{path}?limit=7")).json()
    rest = (await client.get(f"{path}?limit=7&cursor={page['next_cursor']}")).json()
    assert [line["number"] for line in page["items"] + rest["items"]] == list(range(1, 11))
    assert rest["next_cursor"] is None
    only = (await client.get(f"{path}?step=store_kubeconfig")).json()["items"]
    assert [line["text"] for line in only] == [f"store_kubeconfig {number}" for number in range(5)]


async def test_the_end_is_estimated_from_earlier_runs(
    client: httpx.AsyncClient, desk: Desk, database: Database
) -> None:
    for seconds in (10, 20, 60):
        earlier = await desk.request()
        async with database.writing() as session:
            await session.execute(
                update(OperationStep)
                .where(OperationStep.operation_id == earlier.id, OperationStep.name == "apply_terraform")
                .values(
                    status=StepStatus.SUCCEEDED,
                    started_at=earlier.created_at,
                    finished_at=earlier.created_at + timedelta(seconds=seconds),
                )
            )
    operation = await desk.request()
    shown = (await client.get(f"/operations/{operation.id}")).json()
    assert [step["expected_seconds"] for step in shown["steps"]] == [20, None]
    assert shown["eta"] is not None


# --- the stream ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def base_url(app: FastAPI) -> AsyncIterator[str]:
    """The application behind a real socket: streams are not what an in-process client can show."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=2))
    task = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await eventually(started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


@pytest.fixture
async def web(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=300)
    async with httpx.AsyncClient(base_url=base_url, timeout=20, limits=limits) as client:
        yield client


async def _events(
    web: httpx.AsyncClient, path: str, *, after: int | None = None
) -> list[tuple[int, str, dict[str, object]]]:
    """All events of a stream until it ends: (id, type, data)."""
    found = []
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with web.stream("GET", f"{path}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
                fields = {}
    return found


async def _work(desk: Desk, operation_id: object, *, lines: int = 3) -> None:
    operation, _ = await desk.look(operation_id)  # type: ignore[arg-type]
    journal = desk.journals.of(payload_of(operation))
    for name in ("apply_terraform", "store_kubeconfig"):
        async with journal.step(name) as step:
            for number in range(lines):
                step.log(f"{name} {number}")
    await desk.finish(operation.id)


async def test_a_listener_sees_everything_in_order_and_the_stream_ends_with_the_operation(
    web: httpx.AsyncClient, desk: Desk
) -> None:
    operation = await desk.request()
    watching = asyncio.create_task(_events(web, f"/operations/{operation.id}"))
    await _work(desk, operation.id)
    seen = await watching
    assert [number for number, _, _ in seen] == list(range(1, len(seen) + 1))
    assert {kind for _, kind, _ in seen} == {"operation", "step", "log"}
    assert seen[-1][2]["status"] == "SUCCEEDED"
    steps = [(data["name"], data["status"]) for _, kind, data in seen if kind == "step"]
    assert steps[0] == ("apply_terraform", "RUNNING")
    assert steps[-1] == ("store_kubeconfig", "SUCCEEDED")


async def test_a_listener_that_comes_back_gets_what_it_missed_and_nothing_twice(
    web: httpx.AsyncClient, desk: Desk
) -> None:
    operation = await desk.request()
    await _work(desk, operation.id)
    path = f"/operations/{operation.id}"
    everything = await _events(web, path)
    assert await _events(web, path, after=3) == everything[3:]
    over = await web.get(f"{path}/events", headers={"Last-Event-ID": str(everything[-1][0])})
    assert over.status_code == 204


async def test_a_stream_gets_over_events_that_were_dropped(
    web: httpx.AsyncClient, desk: Desk, database: Database
) -> None:
    operation = await desk.request()
    await desk.mark(operation.id, "apply_terraform", StepStatus.RUNNING)
    await desk.mark(operation.id, "apply_terraform", StepStatus.SUCCEEDED)
    async with database.writing() as session:
        await session.execute(delete(OperationEvent).where(OperationEvent.sequence == 2))
    watching = asyncio.create_task(_events(web, f"/operations/{operation.id}"))
    await desk.finish(operation.id)
    assert [number for number, _, _ in await watching] == [1, 3, 4]


async def test_two_hundred_listeners_share_one_reader(
    web: httpx.AsyncClient, desk: Desk, service: Service, database: Database
) -> None:
    operation = await desk.request()
    feeds = service.edge.service(Feeds)
    watching = [asyncio.create_task(_events(web, f"/operations/{operation.id}")) for _ in range(200)]

    async def all_listen() -> bool:
        return feeds.listeners == 200

    await eventually(all_listen, within_s=40)
    assert feeds.open_feeds == 1
    await _work(desk, operation.id, lines=50)
    seen = await asyncio.gather(*watching)
    assert all(one == seen[0] for one in seen)
    assert seen[0][-1][2]["status"] == "SUCCEEDED"


async def test_a_listener_that_went_away_is_noticed(web: httpx.AsyncClient, desk: Desk, service: Service) -> None:
    operation = await desk.request()
    feeds = service.edge.service(Feeds)
    async with web.stream("GET", f"/operations/{operation.id}/events") as answer:
        assert (await anext(answer.aiter_lines())) == "id: 1"
        assert feeds.open_feeds == 1

    async def nobody_listens() -> bool:
        return feeds.open_feeds == 0

    await eventually(nobody_listens)


async def test_heartbeats_come_when_there_is_no_news(database: Database, desk: Desk, notices: Notices) -> None:
    operation = await desk.request()
    feeds = Feeds(database, notices)
    stream = with_heartbeats(feeds.listen(operation.id, after=0), every_s=0.02)
    while (news := await anext(stream)) == HEARTBEAT:
        pass
    assert news.startswith(b"id: 1\nevent: operation\n")
    assert {await anext(stream) for _ in range(5)} == {HEARTBEAT}
    feeds.close()
    assert [rest async for rest in stream if rest != HEARTBEAT] == []


async def test_streams_end_when_the_service_stops(web: httpx.AsyncClient, desk: Desk, service: Service) -> None:
    operation = await desk.request()
    feeds = service.edge.service(Feeds)
    watching = asyncio.create_task(_events(web, f"/operations/{operation.id}"))

    async def somebody_listens() -> bool:
        return feeds.listeners == 1

    await eventually(somebody_listens)
    feeds.close()
    # What was read until then was given; it depends on the moment.
    assert [number for number, _, _ in await watching] in ([], [1])
