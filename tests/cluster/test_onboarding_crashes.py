"""Onboarding goes on where it was when the service is killed: in every step, with kill -9."""

import httpx
import pytest

from sandbox.kubernetes.server import KubernetesServer
from tests.fixtures.cluster import Onboarder
from tests.fixtures.service_process import ServiceProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = (
    "check_access", "inspect_cluster", "prepare_cluster", "install_prometheus", "install_nfd", "detect_nodes",
    "install_gpu_operator", "install_hami", "read_hardware",
)  # fmt: skip


async def test_onboarding_survives_a_kill_in_every_single_step(
    mortal_service: ServiceProcess, gpu_cluster: KubernetesServer
) -> None:
    async with httpx.AsyncClient(base_url=mortal_service.url, timeout=60) as client:
        user = Onboarder(client)
        cluster_id = await user.register("lab")
        operation_id = await user.begin(cluster_id, gpu_cluster)
        killed = await user.killed_in_each(mortal_service, operation_id, STEPS)
        operation = await user.ended(operation_id)
        assert operation["status"] == "SUCCEEDED", operation
        cluster = await user.cluster(cluster_id)
    assert (cluster["status"], cluster["gpu_count"]) == ("READY", 9)
    # The shortest steps may be over before anybody can look.
    assert {"prepare_cluster", "install_prometheus", "install_gpu_operator", "install_hami"} <= killed
