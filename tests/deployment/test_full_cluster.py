"""Changes on a cluster whose GPUs are all taken: they complete, and as much as can be stays servable meanwhile."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import until
from tests.deployment.operator import Operator
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def two_gpus() -> Iterator[KubernetesServer]:
    """Two machines with one GPU each."""
    with KubernetesServer(Options(nodes="l40s:2", clock_factor=60)) as server:
        yield server


async def changed(operator: Operator, deployment_id: str, **config: Any) -> tuple[str, set[bool]]:
    """Change it; how that ended, and whether it was servable whenever one looked."""
    seen = set()
    change = asyncio.create_task(operator.done("PATCH", f"/deployments/{deployment_id}", {"config": config}))
    while not change.done():
        seen.add((await operator.show(deployment_id))["servable"])
        await asyncio.wait({change}, timeout=0.05)
    return (await change)["status"], seen


async def test_changes_complete_with_and_without_a_spare_gpu(onboarder: Onboarder, two_gpus: KubernetesServer) -> None:
    operator = Operator(onboarder, two_gpus, await onboarder.onboarded(two_gpus, gpu_sharing="none"))
    chat = await operator.deployed("chat")
    assert await changed(operator, chat, max_num_seqs=64) == ("SUCCEEDED", {True})  # the new copy first

    scaled = await operator.done("POST", f"/deployments/{chat}/scale", {"replicas": 2})
    assert scaled["status"] == "SUCCEEDED", scaled
    assert await changed(operator, chat, max_num_seqs=32) == ("SUCCEEDED", {True})  # one makes room at a time

    scaled = await operator.done("POST", f"/deployments/{chat}/scale", {"replicas": 1})
    assert scaled["status"] == "SUCCEEDED", scaled
    await until(operator.fits, bool)
    await operator.deployed("neighbour")
    assert (await changed(operator, chat, max_num_seqs=16))[0] == "SUCCEEDED"  # the only one goes first
    assert (await operator.show(chat))["servable"]
