"""Onboarding goes on where it was when the service is killed: in every step, with kill -9."""

from pathlib import Path

import httpx
import pytest

from budcluster.config import PROJECT_ROOT
from budcluster.credentials.keys import RSA_NAME, SYMMETRIC_NAME
from devstack.tools import tools_home
from sandbox.kubernetes.server import KubernetesServer
from tests.fixtures.cluster import CHARTS, Onboarder
from tests.fixtures.service_process import ServiceProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = (
    "check_access", "inspect_cluster", "prepare_cluster", "install_prometheus", "install_nfd", "detect_nodes",
    "install_gpu_operator", "install_hami", "read_hardware",
)  # fmt: skip


async def test_onboarding_survives_a_kill_in_every_single_step(
    database_url: str,
    key_folder: Path,
    gpu_cluster: KubernetesServer,
    tmp_path: Path,
    tool_variables: dict[str, str],
) -> None:
    service = ServiceProcess(
        {
            "PATH": tool_variables["PATH"],
            "DATABASE_URL": database_url,
            "RSA_PRIVATE_KEY_PATH": str(key_folder / RSA_NAME),
            "SYMMETRIC_KEY_PATH": str(key_folder / SYMMETRIC_NAME),
            "ANSIBLE_PLAYBOOKS_PATH": str(PROJECT_ROOT / "playbooks"),
            "KUBERNETES__ALLOW_LOCAL_SERVERS": "true",
            "KUBERNETES__WORKSPACE": str(tmp_path / "tools"),
            "KUBERNETES__COLLECTIONS_PATH": str(tools_home() / "collections"),
            "ADDONS__CHART_MIRROR": str(CHARTS),
        },
        tmp_path / "service.log",
    )
    await service.start()
    try:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            user = Onboarder(client)
            cluster_id = await user.register("lab")
            operation_id = await user.begin(cluster_id, gpu_cluster)
            killed = []
            for step in STEPS:
                if await user.is_running(operation_id, step):
                    await service.kill()
                    killed.append(step)
                    await service.start()
            operation = await user.ended(operation_id)
            assert operation["status"] == "SUCCEEDED", operation
            cluster = await user.cluster(cluster_id)
    finally:
        await service.stop()
    assert (cluster["status"], cluster["gpu_count"]) == ("READY", 9)
    # The shortest steps may be over before anybody can look.
    assert {"prepare_cluster", "install_prometheus", "install_gpu_operator", "install_hami"} <= set(killed)
