"""A deployment comes up although the service is killed in every step: kill -9, a real process."""

from pathlib import Path

import httpx
import pytest

from budcluster.config import PROJECT_ROOT
from budcluster.credentials.keys import RSA_NAME, SYMMETRIC_NAME
from devstack.tools import tools_home
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.operator import Operator
from tests.fixtures.cluster import CHARTS, Onboarder
from tests.fixtures.service_process import ServiceProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = ("check_plan", "prepare_namespace", "write_secrets", "install_release", "wait_until_serving", "smoke_test")


async def test_a_deployment_survives_a_kill_in_every_single_step(
    database_url: str,
    key_folder: Path,
    gpu_cluster: KubernetesServer,
    tmp_path: Path,
    tool_variables: dict[str, str],
) -> None:
    environment = {
        "PATH": tool_variables["PATH"],
        "DATABASE_URL": database_url,
        "RSA_PRIVATE_KEY_PATH": str(key_folder / RSA_NAME),
        "SYMMETRIC_KEY_PATH": str(key_folder / SYMMETRIC_NAME),
        "ANSIBLE_PLAYBOOKS_PATH": str(PROJECT_ROOT / "playbooks"),
        "KUBERNETES__ALLOW_LOCAL_SERVERS": "true",
        "KUBERNETES__WORKSPACE": str(tmp_path / "tools"),
        "KUBERNETES__COLLECTIONS_PATH": str(tools_home() / "collections"),
        "ADDONS__CHART_MIRROR": str(CHARTS),
    }
    service = ServiceProcess(environment, tmp_path / "service.log")
    await service.start()
    try:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            user = Onboarder(client)
            operator = Operator(user, gpu_cluster, await user.onboarded(gpu_cluster, gpu_sharing="none"))
            begun = await operator.begin("chat")
            killed = []
            for step in STEPS:
                if await user.is_running(begun["operation_id"], step):
                    await service.kill()
                    killed.append(step)
                    await service.start()
            operation = await user.ended(begun["operation_id"])
            assert operation["status"] == "SUCCEEDED", operation
            shown = await operator.show(begun["id"])
    finally:
        await service.stop()
    assert (shown["status"], shown["replicas"]) == ("RUNNING", {"desired": 1, "ready": 1})
    assert await operator.releases() == [("1", "deployed")]
    kinds = await operator.labelled(begun["id"])
    assert (kinds.count("Deployment"), kinds.count("Pod"), kinds.count("Service")) == (1, 1, 1)
    # The shortest steps may be over before anybody can look.
    assert {"prepare_namespace", "install_release", "wait_until_serving"} <= set(killed)
