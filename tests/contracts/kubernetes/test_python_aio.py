"""The official Python client, asynchronous, which has no watch: changes are read as raw JSON lines."""

import asyncio

import orjson
import pytest
from kubernetes.aio import client

from tests.contracts.kubernetes.objects import config_map


async def test_nodes_are_read_typed_and_raw(aio: client.ApiClient) -> None:
    core = client.CoreV1Api(aio)
    typed = await core.list_node()
    raw = await core.list_node(_preload_content=False)
    body = orjson.loads(await raw.read())
    assert body["kind"] == "NodeList"
    assert [item["metadata"]["name"] for item in body["items"]] == [item.metadata.name for item in typed.items]


async def test_objects_are_made_changed_and_refused(aio: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(aio)
    await core.create_namespaced_config_map(namespace, config_map("once", a="1"))
    with pytest.raises(client.ApiException) as refusal:
        await core.create_namespaced_config_map(namespace, config_map("once"))
    assert refusal.value.status == 409
    changed = await core.patch_namespaced_config_map("once", namespace, {"data": {"a": "2"}})
    assert changed.data == {"a": "2"}
    await core.delete_namespaced_config_map("once", namespace)
    with pytest.raises(client.ApiException) as absence:
        await core.read_namespaced_config_map("once", namespace)
    assert absence.value.status == 404


async def test_a_watch_is_a_stream_of_json_lines(aio: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(aio)
    listed = await core.list_namespaced_config_map(namespace)
    watching = await core.list_namespaced_config_map(
        namespace,
        watch=True,
        resource_version=listed.metadata.resource_version,
        field_selector="metadata.name=seen",
        timeout_seconds=30,
        _preload_content=False,
    )
    await core.create_namespaced_config_map(namespace, config_map("seen"))
    async with asyncio.timeout(20):
        event = orjson.loads(await watching.content.readline())
    watching.close()
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "seen")


async def test_a_watch_ends_after_the_time_asked_for(aio: client.ApiClient, namespace: str) -> None:
    watching = await client.CoreV1Api(aio).list_namespaced_secret(
        namespace, watch=True, timeout_seconds=1, _preload_content=False
    )
    async with asyncio.timeout(20):
        assert await watching.read() == b""


async def test_deployments_are_served_to_many_at_once(aio: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(aio)
    await asyncio.gather(
        *(core.create_namespaced_config_map(namespace, config_map(f"many-{number}")) for number in range(50))
    )
    listed = await core.list_namespaced_config_map(namespace)
    assert len([item for item in listed.items if item.metadata.name.startswith("many-")]) == 50
