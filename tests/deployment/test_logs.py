"""Logs of pods in a simulated cluster, over TLS: read, followed, resumed, masked."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID, uuid4

import httpx
import pytest

from budcluster.deployment.logs.cursor import Cursor
from budcluster.deployment.logs.errors import LogsUnavailable, NoLogs
from budcluster.deployment.logs.reading import Wanted
from budcluster.deployment.logs.streams import Batch, DeploymentLogs, as_events, as_text
from budcluster.deployment.logs.window import Entry, Notice
from tests.deployment.live import Live, chatty, pod, until
from tests.fixtures.app import client_of, quiet_service, running

COUNT = "; ".join(f"echo line-{number}; sleep 20" for number in range(40))
"""A line every third of a second, at sixty times the usual speed."""
TOKEN = "hf_" + "kWq9ZbTn4LxRvU2sEyPfHd7MgJcA3oXi5B"


@asynccontextmanager
async def listening(
    live: Live, deployment_id: UUID, wanted: Wanted, after: Cursor | None = None
) -> AsyncIterator["Ear"]:
    """What arrives, gathered in the background."""
    stream = await DeploymentLogs(live.database, live.access).open(deployment_id, wanted, after=after or Cursor())
    ear = Ear()

    async def gather() -> None:
        async for batch in stream.batches:
            ear.take(batch)

    task = asyncio.create_task(gather())
    try:
        yield ear
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stream.batches.aclose()


class Ear:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.notices: list[str] = []

    def take(self, batch: Batch) -> None:
        for entry in batch:
            if isinstance(entry, Notice):
                self.notices.append(entry.text)
            else:
                self.entries.append(entry)

    async def texts(self) -> list[str]:
        return [entry.text for entry in self.entries]

    async def sources(self) -> set[str]:
        return {entry.source[0] for entry in self.entries}


async def spoken(live: Live, deployment_id: UUID, text: str) -> None:
    """Wait until the deployment's logs have this text."""

    async def look() -> str:
        try:
            stream = await DeploymentLogs(live.database, live.access).open(deployment_id, Wanted(), after=Cursor())
        except NoLogs:
            return ""
        return b"".join([part async for part in as_text(stream, timestamps=False)]).decode()

    await until(look, lambda seen: text in seen)


@asynccontextmanager
async def service_of(live: Live) -> AsyncIterator[httpx.AsyncClient]:
    async with running(quiet_service(live.settings)) as app, client_of(app) as client:
        yield client


async def test_plain_text_names_the_container_when_there_are_several(live: Live) -> None:
    deployment_id = await live.add()
    live.put(
        pod(deployment_id, "a", chatty("main", "echo hello; sleep 9999"), chatty("side", "echo there; sleep 9999"))
    )
    await spoken(live, deployment_id, "there")
    async with service_of(live) as client:
        answer = await client.get(f"/deployments/{deployment_id}/logs")
        one = await client.get(f"/deployments/{deployment_id}/logs", params={"container": "side", "timestamps": True})
    assert answer.headers["content-type"].startswith("text/plain")
    assert sorted(answer.text.splitlines()) == ["[a/main] hello", "[a/side] there"]
    stamp, text = one.text.rstrip().split(" ", 1)
    assert stamp.startswith("20")
    assert text == "there"


async def test_tail_and_masked_secrets(live: Live) -> None:
    deployment_id = await live.add()
    live.put(pod(deployment_id, "a", chatty("main", f"echo one; echo token {TOKEN}; echo three; sleep 9999")))
    await spoken(live, deployment_id, "three")
    async with service_of(live) as client:
        answer = await client.get(f"/deployments/{deployment_id}/logs", params={"tail": 2})
    assert answer.text.splitlines() == ["token ***", "three"]


async def test_previous_is_the_run_before(live: Live) -> None:
    deployment_id = await live.add()
    live.put(pod(deployment_id, "a", chatty("main", "echo going down; exit 3")))

    async def restarts() -> int:
        (found,) = live.pods(deployment_id)
        return int((found.get("status", {}).get("containerStatuses") or [{}])[0].get("restartCount") or 0)

    await until(restarts, lambda count: count >= 1)
    async with service_of(live) as client:
        answer = await client.get(f"/deployments/{deployment_id}/logs", params={"previous": True})
    assert answer.text == "going down\n"


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"since": "yesterday"}, 422),
        ({"since": "2026-11-24T10:00:00"}, 422),
        ({"tail": -1}, 422),
        ({"nonsense": 1}, 422),
        ({"follow": True, "previous": True}, 422),
        ({"pod": "other"}, 404),
    ],
)
async def test_what_cannot_be_answered_is_a_problem(live: Live, params: dict[str, str], status: int) -> None:
    deployment_id = await live.add()
    async with service_of(live) as client:
        answer = await client.get(f"/deployments/{deployment_id}/logs", params=params)
        unknown = await client.get(f"/deployments/{uuid4()}/logs")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert unknown.status_code == 404


async def test_an_unreachable_cluster_is_told_before_the_first_byte(live: Live) -> None:
    deployment_id = await live.add()
    live.server.be_gone(30)
    with pytest.raises(LogsUnavailable):
        await DeploymentLogs(live.database, live.access).open(deployment_id, Wanted(), after=Cursor())


async def test_a_growing_log_is_followed_and_a_new_pod_joins(live: Live) -> None:
    deployment_id = await live.add()
    live.put(pod(deployment_id, "old", chatty("main", COUNT)))
    async with listening(live, deployment_id, Wanted(follow=True)) as ear:
        await until(ear.texts, lambda texts: "line-2" in texts)
        live.remove("Pod", "old")
        live.put(pod(deployment_id, "new", chatty("main", COUNT)))
        await until(ear.sources, lambda sources: sources == {"old", "new"})
        await until(ear.texts, lambda texts: texts.count("line-2") >= 2)


async def test_a_cut_stream_goes_on_without_a_line_lost_or_repeated(live: Live) -> None:
    deployment_id = await live.add()
    live.put(pod(deployment_id, "a", chatty("main", COUNT)))
    async with listening(live, deployment_id, Wanted(follow=True)) as ear:
        await until(ear.texts, lambda texts: "line-3" in texts)
        live.server.be_gone(1)
        texts = await until(ear.texts, lambda texts: "line-12" in texts)
    assert texts[:13] == [f"line-{number}" for number in range(13)]
    assert len(ear.notices) == 1


async def test_events_are_resumed_where_they_were(live: Live) -> None:
    deployment_id = await live.add()
    live.put(pod(deployment_id, "a", chatty("main", COUNT.replace("sleep 20", "sleep 1") + "; sleep 9999")))
    await spoken(live, deployment_id, "line-39")
    logs = DeploymentLogs(live.database, live.access)
    first = await logs.open(deployment_id, Wanted(tail=20), after=Cursor())
    text = b"".join([frame async for frame in as_events(first, after=Cursor())]).decode()
    seen = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    lines = [line for one in seen for line in one.get("lines", ())]
    assert lines[-1]["text"] == "line-39"
    place = Cursor()
    for line in lines[:5]:
        place.advance(("a", "main"), line["at"])
    async with service_of(live) as client:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(place)}
        answer = await client.get(f"/deployments/{deployment_id}/logs", headers=headers)
        bad = await client.get(f"/deployments/{deployment_id}/logs", headers={"Last-Event-ID": "17"})
    data = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    texts = [line["text"] for one in data for line in one.get("lines", ())]
    assert texts == [f"line-{number}" for number in range(25, 40)]
    assert bad.status_code == 422


async def test_a_reader_that_does_not_take_stops_nobody(live: Live) -> None:
    deployment_id = await live.add()
    live.put(pod(deployment_id, "a", chatty("main", COUNT)))
    await spoken(live, deployment_id, "line-0")
    logs = DeploymentLogs(live.database, live.access)
    idle = await logs.open(deployment_id, replace(Wanted(), follow=True), after=Cursor())
    async with listening(live, deployment_id, Wanted(follow=True)) as ear:
        await until(ear.texts, lambda texts: "line-5" in texts)
    await idle.batches.aclose()
