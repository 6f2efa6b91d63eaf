"""A disk that is full where the service runs: told as what it is, waited for, and nothing is lost by it."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import until
from tests.deployment.operator import Operator
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The workspace of the service's tools, on a disk of its own of 32 MiB; skips where nothing may be mounted."""
    place = tmp_path / "tools"
    place.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place))
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here: that needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
async def operator(small_disk: Path, onboarder: Onboarder, gpu_cluster: KubernetesServer) -> Operator:
    """Somebody with a READY cluster, whose service writes to the small disk."""
    return Operator(onboarder, gpu_cluster, await onboarder.onboarded(gpu_cluster, gpu_sharing="none"))


def _fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    return ballast


async def test_a_deployment_waits_for_space_on_the_disk_and_then_goes_on(operator: Operator, small_disk: Path) -> None:
    ballast = await asyncio.to_thread(_fill, small_disk)
    begun = await operator.begin("chat")

    async def step() -> dict[str, Any]:
        operation = (await operator.user.client.get(f"/operations/{begun['operation_id']}")).json()
        return next(dict(step) for step in operation["steps"] if step["name"] == "prepare_namespace")

    error = (await until(step, lambda seen: bool(seen["error"])))["error"]
    assert (error["type"], error["detail"]) == (
        "disk-full",
        f"The disk that holds {small_disk} is full where the service runs.",
    )
    assert error["next_step"].startswith("Free space")
    ballast.unlink()
    assert (await operator.user.ended(begun["operation_id"]))["status"] == "SUCCEEDED"
    assert [path for path in small_disk.iterdir() if path.name != "helm"] == []
