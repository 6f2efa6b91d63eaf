"""A cluster in which somebody else has installed the GPU stack, served by an account that may do little."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.chart_repository import CHARTS
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.operator import Operator
from tests.fixtures.cluster import Onboarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


OPTIONS = ("--set", "nfd.enabled=false", "--set", "dcgmExporter.serviceMonitor.enabled=false")


@pytest.fixture
def foreign_stack(tool_home: dict[str, str], tmp_path: Path) -> Iterator[KubernetesServer]:
    """Node Feature Discovery and the GPU operator, as their users install them by hand."""
    with KubernetesServer(Options(nodes="l40s:1", clock_factor=60)) as server:
        kubeconfig = server.write_kubeconfig(tmp_path / "kubeconfig")
        for release, chart, *options in (("discovery", "node-feature-discovery"), ("gpus", "gpu-operator", *OPTIONS)):
            subprocess.run(
                ["helm", "install", release, str(CHARTS / chart), "--namespace", "gpu-stack", "--create-namespace",
                 "--wait", "--kubeconfig", str(kubeconfig), *options],
                env=tool_home, check=True, capture_output=True,
            )  # fmt: skip
        yield server


async def test_what_others_installed_is_told_used_and_left_and_models_are_served_with_the_narrow_role(
    onboarder: Onboarder, foreign_stack: KubernetesServer
) -> None:
    cluster_id = await onboarder.onboarded(foreign_stack, manage_addons=False)
    cluster = await onboarder.cluster(cluster_id)
    assert (cluster["status"], cluster["gpu_count"]) == ("READY", 1)
    seen = {addon["name"]: addon for addon in cluster["adoption_report"]["addons"]}
    assert set(seen) == {"nfd", "gpu-operator"}
    assert {key: seen["nfd"][key] for key in ("owner", "release", "namespace")} == {
        "owner": "OTHER", "release": "discovery", "namespace": "gpu-stack",
    }  # fmt: skip
    assert seen["nfd"]["version"].startswith("0.19")
    addons = (await onboarder.client.get(f"/clusters/{cluster_id}/addons")).json()["items"]
    assert {(addon["name"], addon["owner"], addon["release"]) for addon in addons} == {
        ("nfd", "OTHER", "discovery"), ("gpu-operator", "OTHER", "gpus"),
    }  # fmt: skip

    operator = Operator(onboarder, foreign_stack, cluster_id)
    chat = await operator.deployed("chat")
    assert (await operator.show(chat))["status"] == "RUNNING"
    renewed = await onboarder.ended(await onboarder.begin(cluster_id, foreign_stack))
    assert renewed["status"] == "SUCCEEDED", renewed
    assert (await onboarder.cluster(cluster_id))["settings"]["manage_addons"] is False
    assert (await operator.show(chat))["status"] == "RUNNING"
    assert (await operator.done("DELETE", f"/deployments/{chat}"))["status"] == "SUCCEEDED"
    assert (await operator.done("DELETE", f"/clusters/{cluster_id}"))["status"] == "SUCCEEDED"

    def releases() -> set[str]:
        secrets = foreign_stack.cluster.store.list("Secret")
        return {one["metadata"]["labels"]["name"] for one in secrets if one.get("type") == "helm.sh/release.v1"}

    assert await asyncio.to_thread(foreign_stack.call, releases) == {"discovery", "gpus"}
