"""What others do to a release in its cluster is put right by the next request: real Helm, real kubectl."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.live import NAMESPACE, until
from tests.deployment.operator import Operator
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PUT_RIGHT: dict[str, Any] = {"config": {}}


class Meddler:
    """Somebody with access to the cluster, who does not ask this service."""

    def __init__(self, operator: Operator, deployment_id: str, kubeconfig: Path) -> None:
        self._operator = operator
        self._id = deployment_id
        self._kubeconfig = operator.server.write_kubeconfig(kubeconfig)

    async def kubectl(self, *words: str) -> str:
        """Run it in the namespace of models; what it says."""
        argv = ("kubectl", "--kubeconfig", str(self._kubeconfig), "--namespace", NAMESPACE, *words)
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        assert process.returncode == 0
        return said.decode()

    async def image(self) -> str:
        """The image that the release's Deployment asks for."""
        return await self.kubectl(
            "get", "deployment", await self.release(), "-o", "jsonpath={.spec.template.spec.containers[0].image}"
        )

    async def environment(self) -> str:
        """Names of the variables that the release's Deployment sets."""
        path = "jsonpath={.spec.template.spec.containers[0].env[*].name}"
        return await self.kubectl("get", "deployment", await self.release(), "-o", path)

    async def release(self) -> str:
        """Name of the release's objects."""
        return str((await self._operator.show(self._id))["helm_release"])

    async def diagnosed(self) -> str:
        """The diagnosis, once there is one."""
        shown = await until(lambda: self._operator.show(self._id), lambda shown: shown["diagnosis"] is not None)
        return str(shown["diagnosis"]["type"])


async def test_what_others_change_or_delete_is_put_right(
    onboarder: Onboarder, gpu_cluster: KubernetesServer, tmp_path: Path
) -> None:
    cluster_id = await onboarder.onboarded(gpu_cluster, gpu_sharing="none")
    operator = Operator(onboarder, gpu_cluster, cluster_id)
    chat = await operator.deployed("chat")
    path = f"/deployments/{chat}"
    meddler = Meddler(operator, chat, tmp_path / "kubeconfig")
    release, image = await meddler.release(), await meddler.image()

    async def is_right_after(method: str, path: str, body: dict[str, Any]) -> None:
        operation = await operator.done(method, path, body)
        assert operation["status"] == "SUCCEEDED", operation
        await until(lambda: operator.show(chat), lambda shown: shown["status"] == "RUNNING" and not shown["diagnosis"])
        assert await meddler.image() == image

    await meddler.kubectl("scale", "deployment", release, "--replicas=0")
    assert await meddler.diagnosed() == "edited-outside"
    await is_right_after("POST", f"{path}/scale", {"replicas": 1})

    await meddler.kubectl("set", "image", f"deployment/{release}", "runtime=evil/x:1")
    await meddler.diagnosed()
    await is_right_after("PATCH", path, PUT_RIGHT)

    await meddler.kubectl("set", "image", f"deployment/{release}", "runtime=evil/x:1")
    await is_right_after("PATCH", path, {"config": {"max_num_seqs": 64}})

    await meddler.kubectl("set", "env", f"deployment/{release}", "MEDDLED=yes")
    await meddler.diagnosed()
    await is_right_after("PATCH", path, PUT_RIGHT)
    assert "MEDDLED" not in await meddler.environment()

    await meddler.kubectl("delete", "deployment", release)
    assert await meddler.diagnosed() == "release-missing"
    await is_right_after("PATCH", path, PUT_RIGHT)

    await meddler.kubectl("delete", "service", release)
    assert await meddler.diagnosed() == "service-missing"
    await is_right_after("PATCH", path, PUT_RIGHT)

    await meddler.kubectl("set", "image", f"deployment/{release}", "runtime=evil/x:1")
    failed = await operator.done("PATCH", path, {"config": {"image": "vllm/vllm-openai:v9.9.9-missing"}})
    assert failed["error"]["type"] == "runtime-failed", failed
    await until(lambda: operator.show(chat), lambda shown: shown["status"] == "RUNNING" and not shown["diagnosis"])
    assert await meddler.image() == image
    assert (await operator.user.client.patch(path, json=PUT_RIGHT)).status_code == 200
