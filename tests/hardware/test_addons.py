"""Seeing whose add-on is installed, and waiting for discovery: on objects as a cluster gives them."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from budcluster.config import AddonSettings
from budcluster.hardware import hami, installer, nfd
from budcluster.hardware.models import AddonOwner
from budcluster.hardware.reading.reader import DETECTED
from budcluster.kube.resources import NODES, Resource


class Lists:
    """A cluster that can be listed."""

    def __init__(self, **items: list[dict[str, Any]]) -> None:
        self._items = items

    async def list_pages(self, resource: Resource, **_: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"items": self._items.get(resource.plural, [])}


class OurReleases:
    """A Helm in which every release is ours, but for those that are called theirs."""

    async def get(self, name: str, _: str) -> SimpleNamespace:
        return SimpleNamespace(is_ours=name != "theirs")


def node(name: str, *, ready: bool = True, detected: bool = False) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "annotations": {DETECTED: ""} if detected else {}},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def worker(on: str) -> dict[str, Any]:
    return {"metadata": {"name": f"worker-{on}"}, "spec": {"nodeName": on}}


@pytest.mark.parametrize(
    ("chart", "is_it"),
    [("hami-2.10.0", True), ("hami-v2.10.0-rc.1", True), ("hami-webui-1.0.5", False), ("my-hami-2.10.0", False)],
)
async def test_a_release_is_known_by_its_charts_whole_name(chart: str, is_it: bool) -> None:
    door: Any = SimpleNamespace(helm=OurReleases(), client=Lists())
    rows = [{"name": "x", "namespace": "y", "chart": chart}]
    found = await installer.find(hami.addon(AddonSettings()), door, releases=rows)
    assert (found is not None and found.owner is AddonOwner.OURS) is is_it


@pytest.mark.parametrize("names", [("theirs", "hami"), ("hami", "theirs")])
async def test_ours_is_found_beside_one_that_somebody_else_installed_later(names: tuple[str, str]) -> None:
    door: Any = SimpleNamespace(helm=OurReleases(), client=Lists())
    rows = [{"name": name, "namespace": "kube-system", "chart": "hami-2.10.0"} for name in names]
    found = await installer.find(hami.addon(AddonSettings()), door, releases=rows)
    assert found is not None
    assert (found.owner, found.release) == (AddonOwner.OURS, "hami")


async def detect(**items: list[dict[str, Any]]) -> nfd.Detection:
    client: Any = Lists(**items)
    return await nfd.wait_until_detected(client, timeout_s=0, on_progress=lambda *_: None)


async def test_nodes_that_are_not_labelled_in_time_are_named() -> None:
    nodes = [node("a", detected=True), node("b")]
    found = await detect(nodes=nodes, pods=[worker("a"), worker("b")])
    assert (found.covered, found.missing) == (("a",), ("b",))


async def test_nodes_out_of_reach_are_not_waited_for_and_the_reason_is_told() -> None:
    found = await detect(nodes=[node("a", detected=True), node("b", ready=False), node("c")], pods=[worker("a")])
    assert found.is_complete
    assert [sentence.split(":")[0] for sentence in found.not_covered] == ["b", "c"]


async def test_a_cluster_without_nodes_is_done_at_once() -> None:
    client: Any = Lists(**{NODES.plural: []})
    found = await nfd.wait_until_detected(client, timeout_s=3600, on_progress=lambda *_: None)
    assert found.is_complete
