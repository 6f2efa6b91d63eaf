"""Releases that a Helm left pending when it and its parent were killed: real Helm, real chart, kill -9."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from budcluster.config import PROJECT_ROOT
from budcluster.deployment.models import RuntimeType
from budcluster.deployment.runtimes import RUNTIMES, LaunchRequest
from budcluster.deployment.runtimes.launch import Hardware
from budcluster.deployment.values import ReleasePlan, Rollout, chart_values
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer
from tests.deployment.killed_helm import NAME, NAMESPACE, WAIT_S, gateway, wanted
from tests.deployment.live import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def server(
    tmp_path: Path, tool_variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[KubernetesServer]:
    """A machine without GPUs, five times as fast: a start still takes long enough to be interrupted."""
    monkeypatch.setenv("PATH", tool_variables["PATH"])
    with KubernetesServer(Options(nodes="cpu-amx:1", clock_factor=5)) as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        yield server


def _want(folder: Path, *, max_num_seqs: int) -> None:
    asked = LaunchRequest("Qwen/Qwen2.5-0.5B-Instruct", "qwen", hardware=Hardware.CPU, max_num_seqs=max_num_seqs)
    launch = RUNTIMES[RuntimeType.VLLM].launch(asked)
    plan = ReleasePlan("0b7e", RuntimeType.VLLM, asked, launch, replicas=1, rollout=Rollout.RECREATE)
    (folder / "values.json").write_text(json.dumps(chart_values(plan)))


def _newest(server: KubernetesServer) -> str:
    records = [
        found["metadata"]["labels"]
        for found in server.cluster.store.list("Secret", NAMESPACE)
        if found.get("type") == "helm.sh/release.v1"
    ]
    return str(max(records, key=lambda labels: int(labels["version"]))["status"]) if records else ""


def _generation(server: KubernetesServer) -> int:
    return max((int(one["metadata"]["generation"]) for one in server.cluster.store.list("Deployment", NAMESPACE)),
               default=0)  # fmt: skip


async def _kill_while(status: str, *, generation: int, folder: Path, server: KubernetesServer) -> None:
    """Begin to bring the release up, and kill -9 once Helm waits for the pods."""
    argv = ("-m", "tests.deployment.killed_helm", str(folder))
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, cwd=PROJECT_ROOT)

    async def look() -> tuple[str, int]:
        return await asyncio.to_thread(server.call, lambda: (_newest(server), _generation(server)))

    await until(look, lambda seen: seen == (status, generation))
    helms = [child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == "helm"]
    assert helms
    process.kill()
    for helm in helms:
        helm.kill()
    await process.wait()
    assert await look() == (status, generation)


async def test_a_release_left_pending_is_repaired_and_deployed(server: KubernetesServer, tmp_path: Path) -> None:
    helm = gateway(tmp_path)
    _want(tmp_path, max_num_seqs=8)
    await _kill_while("pending-install", generation=1, folder=tmp_path, server=server)
    installed = await helm.ensure(wanted(tmp_path), timeout_s=WAIT_S)
    assert (installed.status.value, installed.number, installed.is_ours) == ("deployed", 1, True)

    _want(tmp_path, max_num_seqs=16)
    await _kill_while("pending-upgrade", generation=2, folder=tmp_path, server=server)
    await helm.ensure(wanted(tmp_path), timeout_s=WAIT_S)
    history = [(one.number, one.status.value) for one in await helm.history(NAME, NAMESPACE)]
    assert (history[0][0], history[-1]) == (1, (4, "deployed"))
    assert "rollback" in (await helm.history(NAME, NAMESPACE))[2].description.lower()
    assert await helm.values(NAME, NAMESPACE) == dict(wanted(tmp_path).values)
