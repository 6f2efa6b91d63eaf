"""Many deployments at once on one cluster: all of them come up, each on a GPU of its own."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.operator import Operator
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MACHINES, GPUS = 4, 8
ALL = MACHINES * GPUS


@pytest.fixture
def farm() -> Iterator[KubernetesServer]:
    """Machines with eight GPUs each; time runs sixty times as fast."""
    with KubernetesServer(Options(nodes=f"h100x8:{MACHINES}", clock_factor=60)) as server:
        yield server


async def test_as_many_deployments_as_there_are_gpus_come_up_together(
    farm: KubernetesServer, onboarder: Onboarder
) -> None:
    operator = Operator(onboarder, farm, await onboarder.onboarded(farm, gpu_sharing="none"))
    begun = await asyncio.gather(*(operator.begin(f"chat-{number}") for number in range(ALL)))
    ended = await asyncio.gather(*(operator.user.ended(one["operation_id"]) for one in begun))
    assert Counter(operation["status"] for operation in ended) == {"SUCCEEDED": ALL}, ended
    listed = (await operator.user.client.get("/deployments", params={"limit": 500})).json()["items"]
    assert Counter(one["status"] for one in listed) == {"RUNNING": ALL}

    def places() -> Counter[str]:
        return Counter(pod["spec"]["nodeName"] for pod in farm.cluster.store.list("Pod", "budcluster-models"))

    assert set((await asyncio.to_thread(farm.call, places)).values()) == {GPUS}
    assert await operator.releases() == [("1", "deployed")] * ALL
