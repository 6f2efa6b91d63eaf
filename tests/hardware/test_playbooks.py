"""The playbooks of the add-ons, run with real Ansible as an operator runs them by hand: on a simulated cluster."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from budcluster.config import PROJECT_ROOT
from budcluster.hardware.hami import MARK
from budcluster.kube.door import Door, Doors
from budcluster.kube.kubeconfig import read_kubeconfig
from devstack.tools import tools_home
from sandbox.kubernetes.server import KubernetesServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

GPU, OTHER_GPU, CPU = "h100x8-1", "l40s-1", "cpu-amx-1"


@pytest.fixture
async def door(gpu_cluster: KubernetesServer, tmp_path: Path, tool_variables: dict[str, str]) -> AsyncIterator[Door]:
    doors = Doors(
        playbooks=PROJECT_ROOT / "playbooks", workspace=tmp_path, max_tools=2,
        collections=tools_home() / "collections", path=tool_variables["PATH"],
    )  # fmt: skip
    kubeconfig = read_kubeconfig(gpu_cluster.kubeconfig(), now=datetime.now(UTC), allow_local=True)
    async with doors.open(kubeconfig) as opened:
        yield opened


async def nodes(server: KubernetesServer) -> dict[str, dict[str, Any]]:
    found = await asyncio.to_thread(server.call, lambda: list(server.cluster.store.list("Node")))
    return {node["metadata"]["name"]: node["metadata"] for node in found}


def change_node(server: KubernetesServer, name: str, **metadata: dict[str, str]) -> None:
    def write(node: dict[str, Any]) -> None:
        for part, values in metadata.items():
            node["metadata"].setdefault(part, {}).update(values)

    server.call(lambda: server.cluster.store.update("Node", None, name, write))


async def test_nodes_are_labelled_for_hami_and_only_what_is_ours_is_taken_back(
    door: Door, gpu_cluster: KubernetesServer
) -> None:
    change_node(gpu_cluster, OTHER_GPU, labels={"gpu": "on"})
    change_node(gpu_cluster, CPU, labels={"gpu": "none-at-all"})
    variables = {"nodes": [GPU, OTHER_GPU, CPU], "state": "present"}
    assert (await door.play("install_hami.yml", variables=variables, timeout_s=60)).changed == 1
    found = {name: node["labels"] for name, node in (await nodes(gpu_cluster)).items()}
    assert {name: (labels["gpu"], labels.get(MARK)) for name, labels in found.items()} == {
        GPU: ("on", "labelled"), OTHER_GPU: ("on", "found"), CPU: ("none-at-all", None)
    }  # fmt: skip
    assert (await door.play("install_hami.yml", variables=variables, timeout_s=60)).changed == 0

    left_by_hami = {"hami.io/node-nvidia-register": "[]", "hami.io/node-handshake": "Requesting_2026-11-23 10:00:00"}
    for name in (GPU, OTHER_GPU):
        change_node(gpu_cluster, name, annotations={**left_by_hami, "hami.io/mine": "kept"})
    variables = {"nodes": [], "state": "absent"}
    assert (await door.play("install_hami.yml", variables=variables, timeout_s=60)).changed == 1
    after = await nodes(gpu_cluster)
    assert {name: (node["labels"].get("gpu"), node["labels"].get(MARK)) for name, node in after.items()} == {
        GPU: (None, None), OTHER_GPU: ("on", None), CPU: ("none-at-all", None)
    }  # fmt: skip
    for name in (GPU, OTHER_GPU):
        assert not left_by_hami.keys() & after[name]["annotations"].keys()
        assert after[name]["annotations"]["hami.io/mine"] == "kept"
    assert (await door.play("install_hami.yml", variables=variables, timeout_s=60)).changed == 0


async def test_the_namespace_of_discovery_is_made_once(door: Door) -> None:
    variables = {"namespace": "node-feature-discovery"}
    runs = [await door.play("install_nfd.yml", variables=variables, timeout_s=60) for _ in range(2)]
    assert [run.changed for run in runs] == [1, 0]
