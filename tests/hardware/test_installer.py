"""Installing again what failed before: with real Helm, on a simulated cluster whose time runs as it does."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from budcluster.config import PROJECT_ROOT, AddonSettings
from budcluster.hardware import installer, nfd
from budcluster.hardware.addons import Platform, Surroundings
from budcluster.hardware.models import AddonOwner
from budcluster.hardware.rollout import NotUp
from budcluster.kube.door import Door, Doors
from budcluster.kube.helm_errors import PermissionMissing
from budcluster.kube.kubeconfig import read_kubeconfig
from budcluster.kube.versions import Version
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer

pytestmark = pytest.mark.slow

ABOUT = Surroundings(platform=Platform.OTHER, server=Version.parse("v1.36.2"))
WAYS: dict[str, Any] = {"mirror": str(PROJECT_ROOT / "deploy" / "sandbox" / "charts"), "timeout_s": 60}


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer(Options(nodes="cpu-amx:1")) as running:
        yield running


@pytest.fixture
async def door(server: KubernetesServer, tmp_path: Path, tool_variables: dict[str, str]) -> AsyncIterator[Door]:
    doors = Doors(playbooks=tmp_path, workspace=tmp_path, max_tools=2, collections=None, path=tool_variables["PATH"])
    kubeconfig = read_kubeconfig(server.kubeconfig(), now=datetime.now(UTC), allow_local=True)
    async with doors.open(kubeconfig) as opened:
        yield opened


@pytest.mark.parametrize("way_out", ["the registry is mended", "another registry is named"])
async def test_a_retry_is_not_judged_by_what_failed_before_it(
    door: Door, server: KubernetesServer, way_out: str
) -> None:
    simulation: Any = server.cluster.simulation
    server.call(lambda: simulation.inject("image_missing", image="registry.k8s.io/nfd/*"))
    with pytest.raises(NotUp, match="there is no such image"):
        await installer.ensure(nfd.addon(AddonSettings()), ABOUT, door, **WAYS)
    settings = AddonSettings()
    if way_out == "the registry is mended":
        server.call(lambda: simulation.inject("image_missing", image="registry.k8s.io/nfd/*", missing=False))
    else:
        settings = AddonSettings(image_registry="mirror.example")
    found = await installer.ensure(nfd.addon(settings), ABOUT, door, **WAYS)
    assert found.owner is AddonOwner.OURS


async def test_a_removal_that_the_cluster_forbids_names_the_permission_that_is_missing(
    door: Door, server: KubernetesServer
) -> None:
    addon = nfd.addon(AddonSettings())
    await installer.ensure(addon, ABOUT, door, **WAYS)
    forbidden = Fault("forbidden", verbs=("delete",), resources=("daemonsets",))
    with server.fault(forbidden), pytest.raises(PermissionMissing, match='cannot delete resource "daemonsets"'):
        await installer.remove(addon, door, timeout_s=20)
    assert await installer.remove(addon, door, timeout_s=20)
    assert await installer.find(addon, door) is None
