"""The client against the simulated API server: what both sides take for granted must agree."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Conflict, NotFound, Unauthorized
from budcluster.kube.kubeconfig import read_kubeconfig
from budcluster.kube.resources import NAMESPACES, NODES, Resource
from budcluster.kube.versions import Support, Version, judge_server
from sandbox.kubernetes.server import KubernetesServer

CONFIG_MAPS = Resource("", "v1", "configmaps")


@pytest.fixture(scope="module")
def cluster() -> Iterator[KubernetesServer]:
    with KubernetesServer() as server:
        yield server


def client_of(cluster: KubernetesServer, token: str | None = None) -> ClusterClient:
    text = cluster.kubeconfig(token=token)
    return ClusterClient(read_kubeconfig(text, now=datetime.now(UTC), allow_local=True))


@pytest.fixture
async def api(cluster: KubernetesServer) -> AsyncIterator[ClusterClient]:
    async with client_of(cluster) as client:
        yield client


async def test_its_version_is_supported(api: ClusterClient) -> None:
    assert judge_server(Version.of_server(await api.read("/version"))).support is Support.SUPPORTED


async def test_an_object_lives_from_create_to_delete(api: ClusterClient) -> None:
    made = await api.create(CONFIG_MAPS, {"metadata": {"name": "life"}, "data": {"a": "1"}}, namespace="default")
    with pytest.raises(Conflict) as caught:
        await api.create(CONFIG_MAPS, {"metadata": {"name": "life"}}, namespace="default")
    assert caught.value.reason == "AlreadyExists"
    watched = api.watch(
        CONFIG_MAPS, resource_version=made["metadata"]["resourceVersion"], namespace="default", timeout_s=10
    )
    async with aclosing(watched) as events:
        await api.patch(CONFIG_MAPS, "life", {"data": {"a": "2"}}, namespace="default")
        changed = await anext(events)
    assert (changed["type"], changed["object"]["data"]) == ("MODIFIED", {"a": "2"})
    assert await api.delete(CONFIG_MAPS, "life", namespace="default")
    assert not await api.delete(CONFIG_MAPS, "life", namespace="default")
    with pytest.raises(NotFound):
        await api.get(CONFIG_MAPS, "life", namespace="default")


async def test_apply_makes_and_changes_and_may_be_repeated(api: ClusterClient) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1"}}
    first = await api.apply(CONFIG_MAPS, body, namespace="default")
    second = await api.apply(CONFIG_MAPS, body, namespace="default")
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert second["metadata"]["managedFields"][0]["manager"] == "budcluster"


async def test_lists_page(api: ClusterClient) -> None:
    whole = [page async for page in api.list_pages(NAMESPACES)]
    single = [page async for page in api.list_pages(NAMESPACES, limit=1)]
    assert len(whole) == 1
    assert len(single) == len(whole[0]["items"]) > 1


async def test_an_administrator_may_do_everything(api: ClusterClient) -> None:
    assert await api.may("delete", NODES)


async def test_an_unknown_token_is_told(cluster: KubernetesServer) -> None:
    async with client_of(cluster, token="not-a-token-of-this-cluster") as stranger:
        with pytest.raises(Unauthorized):
            await stranger.get(NODES, "a")
