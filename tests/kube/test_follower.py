"""Following a kind on the simulated API server, also when the kind itself comes and goes."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import trustme

from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import NotFound
from budcluster.kube.follower import Follower
from budcluster.kube.kubeconfig import read_kubeconfig
from budcluster.kube.resources import Resource
from sandbox.kubernetes.server import KubernetesServer
from tests.kube.api_server import Answer, ApiServer, Asked, serving, status
from tests.monitoring.fleet import put
from tests.waiting import until

WIDGETS = Resource("example.com", "v1", "widgets")
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"kind": "Widget", "plural": "widgets"},
        "scope": "Namespaced",
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


class Seen:
    """What a follower has told."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def see(self, obj: dict[str, Any]) -> str:
        name = str(obj["metadata"]["name"])
        self.names.add(name)
        return name

    def lose(self, name: str) -> None:
        self.names.discard(name)

    async def now(self) -> set[str]:
        return set(self.names)


@pytest.fixture
def cluster() -> Iterator[KubernetesServer]:
    with KubernetesServer() as server:
        server.call(lambda: server.cluster.store.create(dict(DEFINITION)))
        yield server


def widget(name: str) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name, "namespace": "default"}}


def client_of(cluster: KubernetesServer) -> ClusterClient:
    return ClusterClient(read_kubeconfig(cluster.kubeconfig(), now=datetime.now(UTC), allow_local=True))


def withdraw(cluster: KubernetesServer) -> None:
    """Delete the definition; the API server then ends the watches of its kind."""
    cluster.call(lambda: cluster.cluster.store.delete("CustomResourceDefinition", None, "widgets.example.com"))
    cluster.cut_watches()


async def test_a_kind_that_is_removed_while_watched_is_forgotten_and_found_again(cluster: KubernetesServer) -> None:
    put(cluster, widget("first"))
    seen = Seen()
    follower = Follower(WIDGETS, seen.see, seen.lose, optional=True, absent_s=0.05)
    async with client_of(cluster) as client:
        watching = asyncio.create_task(follower.watch(client, lambda: None))
        try:
            await until(seen.now, lambda names: names == {"first"})
            withdraw(cluster)
            await until(seen.now, lambda names: not names)
            cluster.call(lambda: cluster.cluster.store.create(dict(DEFINITION)))
            put(cluster, widget("second"))
            await until(seen.now, lambda names: names == {"second"})
            assert follower.listed
            assert not watching.done()
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


async def test_a_kind_that_must_be_there_and_is_removed_is_told(cluster: KubernetesServer) -> None:
    seen = Seen()
    follower = Follower(WIDGETS, seen.see, seen.lose)
    async with client_of(cluster) as client:
        watching = asyncio.create_task(follower.watch(client, lambda: None))
        put(cluster, widget("only"))
        await until(seen.now, lambda names: names == {"only"})
        withdraw(cluster)
        with pytest.raises(NotFound):
            await watching


async def test_what_a_list_that_broke_had_shown_is_lost_when_the_next_one_does_not_show_it() -> None:
    async with serving(ApiServer(trustme.CA())) as server, ClusterClient(server.config()) as client:
        pages = [
            Answer({"metadata": {"resourceVersion": "1", "continue": "more"}, "items": [widget("ghost")]}),
            status(410, "Expired"),
            Answer({"metadata": {"resourceVersion": "2"}, "items": [widget("alive")]}),
        ]

        def answer(_: Asked) -> Answer:
            return pages.pop(0)

        server.answer = answer
        seen = Seen()
        await Follower(WIDGETS, seen.see, seen.lose).list(client)
    assert (seen.names, pages) == ({"alive"}, [])
