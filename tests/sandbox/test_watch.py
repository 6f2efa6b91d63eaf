"""Watches: selections, starting points, bookmarks, ends."""

import asyncio

import httpx

from sandbox.kubernetes.app import ApiServer
from sandbox.kubernetes.cluster import Cluster
from tests.sandbox.api import CONFIG_MAPS, a_config_map, client_of, open_stream

MERGE = {"content-type": "application/merge-patch+json"}


async def version_of(api: httpx.AsyncClient) -> str:
    version: str = (await api.get(CONFIG_MAPS)).json()["metadata"]["resourceVersion"]
    return version


async def test_a_watch_tells_what_happens_after_its_version(app: ApiServer, api: httpx.AsyncClient) -> None:
    version = await version_of(api)
    await api.post(CONFIG_MAPS, json=a_config_map("before"))
    async with open_stream(app, f"{CONFIG_MAPS}?watch=True&resourceVersion={version}") as watch:
        assert await watch.started() == 200
        assert await watch.seen(1) == [("ADDED", "before")]
        await api.post(CONFIG_MAPS, json=a_config_map("after"))
        await api.patch(f"{CONFIG_MAPS}/after", json={"data": {"a": "b"}}, headers=MERGE)
        await api.delete(f"{CONFIG_MAPS}/after")
        assert await watch.seen(3) == [("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "after")]


async def test_objects_enter_and_leave_a_selection(app: ApiServer, api: httpx.AsyncClient) -> None:
    version = await version_of(api)
    async with open_stream(app, f"{CONFIG_MAPS}?watch=1&resourceVersion={version}&labelSelector=team%3Da") as watch:
        await watch.started()
        await api.post(CONFIG_MAPS, json=a_config_map("c"))
        for team in ("a", "b"):
            await api.patch(f"{CONFIG_MAPS}/c", json={"metadata": {"labels": {"team": team}}}, headers=MERGE)
        assert await watch.seen(2) == [("ADDED", "c"), ("DELETED", "c")]


async def test_a_watch_without_version_begins_with_what_is_there(app: ApiServer, api: httpx.AsyncClient) -> None:
    await api.post(CONFIG_MAPS, json=a_config_map("c"))
    async with open_stream(app, f"{CONFIG_MAPS}?watch=true") as watch:
        await watch.started()
        assert ("ADDED", "c") in await watch.seen(2)


async def test_initial_events_end_with_a_marked_bookmark(app: ApiServer, api: httpx.AsyncClient) -> None:
    await api.post(CONFIG_MAPS, json=a_config_map("c"))
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with open_stream(app, f"{CONFIG_MAPS}?{query}&fieldSelector=metadata.name%3Dc") as watch:
        await watch.started()
        assert await watch.seen(1) == [("ADDED", "c")]
        bookmark = await watch.event()
        assert bookmark is not None
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_bookmarks_come_when_they_are_allowed() -> None:
    app = ApiServer(Cluster(), bookmark_s=0.01)
    async with open_stream(app, f"{CONFIG_MAPS}?watch=true&resourceVersion=1000000&allowWatchBookmarks=true") as watch:
        await watch.started()
        event = await watch.event()
        assert event is not None
        assert (event["type"], event["object"]["kind"]) == ("BOOKMARK", "ConfigMap")


async def test_a_watch_from_a_forgotten_version_gets_410(app: ApiServer, api: httpx.AsyncClient) -> None:
    version = await version_of(api)
    await api.post(CONFIG_MAPS, json=a_config_map("c"))
    app.cluster.store.history.compact()
    async with open_stream(app, f"{CONFIG_MAPS}?watch=true&resourceVersion={version}") as watch:
        assert await watch.started() == 200
        event = await watch.event()
        assert event is not None
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await watch.event() is None


async def test_a_watch_ends_after_its_timeout(api: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        answer = await api.get(
            CONFIG_MAPS, params={"watch": "true", "timeoutSeconds": "1", "resourceVersion": "1000000"}
        )
    assert answer.content == b""


async def test_open_watches_end_when_they_are_cut(app: ApiServer) -> None:
    async with open_stream(app, f"{CONFIG_MAPS}?watch=true&resourceVersion=1000000") as watch:
        await watch.started()
        await watch.chunks.get()
        assert app.watches.cut() == 1
        assert await watch.event() is None


async def test_a_watch_is_forgotten_when_the_client_goes(app: ApiServer) -> None:
    async with open_stream(app, f"{CONFIG_MAPS}?watch=true") as watch:
        await watch.started()
        await watch.event()
    assert app.watches.cut() == 0


async def test_a_table_watch_sends_rows(app: ApiServer, api: httpx.AsyncClient) -> None:
    await api.post(CONFIG_MAPS, json=a_config_map("c", data={"a": "b"}))
    accept = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    async with open_stream(app, f"{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Dc", headers=accept) as watch:
        await watch.started()
        event = await watch.event()
        assert event is not None
        assert event["object"]["kind"] == "Table"
        assert event["object"]["rows"][0]["cells"][:2] == ["c", 1]


async def test_fifty_watchers_hear_every_write() -> None:
    app = ApiServer(Cluster())
    async with client_of(app) as api, asyncio.TaskGroup() as group:

        async def listen() -> list[tuple[str, str]]:
            async with open_stream(app, f"{CONFIG_MAPS}?watch=true&resourceVersion=1000000") as watch:
                await watch.started()
                ready.release()
                return await watch.seen(20)

        ready = asyncio.Semaphore(0)
        listeners = [group.create_task(listen()) for _ in range(50)]
        for _ in listeners:
            await ready.acquire()
        for number in range(20):
            await api.post(CONFIG_MAPS, json=a_config_map(f"c{number}"))
    assert all(task.result() == [("ADDED", f"c{n}") for n in range(20)] for task in listeners)
