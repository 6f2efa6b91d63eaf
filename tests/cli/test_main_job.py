"""The main job, typed at a shell: a cluster is onboarded, a model deployed, scaled, watched, taken back and deleted."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import Result

from sandbox.kubernetes.server import KubernetesServer
from tests.cli.conftest import CommandLine
from tests.deployment.live import NAMESPACE, until
from tests.fixtures.service_process import ServiceProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MODEL = "Qwen/Qwen3-0.6B"
GATED = "meta-llama/Llama-3.1-8B-Instruct"


class Follower:
    """`deployments logs -f` as a process, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out: list[str] = []
        self.errors: list[str] = []

    async def _collect(self, stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        assert stream is not None
        while line := await stream.readline():
            lines.append(line.decode())

    async def run(self) -> None:
        await asyncio.gather(
            self._collect(self.process.stdout, self.out), self._collect(self.process.stderr, self.errors)
        )

    async def pods(self) -> set[str]:
        """Pods that the lines name."""
        return {found[1] for line in self.out if (found := re.match(r"\[(\S+)/runtime\] ", line))}

    async def complaints(self) -> str:
        """Everything on standard error."""
        return "".join(self.errors)


@asynccontextmanager
async def following(deployment: str, *, url: str) -> AsyncIterator[Follower]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "budcluster", "deployments", "logs", deployment, "-f", "--timestamps",
        env={**os.environ, "BUDCLUSTER_URL": url}, cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    follower = Follower(process)
    reading = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()
        await reading


def ok(result: Result) -> str:
    """What a command printed that did what it was asked to."""
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows the models: they are deployed all the same."""
    monkeypatch.setenv("MODEL_HUB__ENABLED", "false")


async def test_the_main_job_is_done_from_the_command_line(
    no_hub: None, mortal_service: ServiceProcess, gpu_cluster: KubernetesServer, tmp_path: Path
) -> None:
    budcluster = CommandLine({"BUDCLUSTER_URL": mortal_service.url, "BUDCLUSTER_TOKEN": None})
    kubeconfig = tmp_path / "lab.yaml"
    kubeconfig.write_text(gpu_cluster.kubeconfig())
    onboarded = ok(await budcluster("clusters", "onboard", str(kubeconfig), "--name", "lab", "--gpu-sharing", "none"))
    assert "SUCCEEDED" in onboarded

    deployed = await budcluster("deploy", MODEL, "--cluster", "lab", "--name", "chat")
    assert f"chat serves {MODEL} at http://" in ok(deployed)
    assert "Note: " in deployed.stderr
    assert len(ok(await budcluster("deployments", "logs", "chat", "--tail", "3")).splitlines()) == 3

    await _crash(gpu_cluster)
    (kept,) = await until(lambda: budcluster.json("deployments", "attempts", "chat"), bool)
    assert kept["pod"] in ok(await budcluster("deployments", "attempts", "chat"))
    assert "CUDA" in ok(await budcluster("deployments", "logs", "chat", "--attempt", kept["id"], "--tail", "9"))
    assert (await budcluster("deployments", "logs", "chat", "-f", "--attempt", kept["id"])).exit_code == 2

    async with following("chat", url=mortal_service.url) as follower:
        ok(await budcluster("deployments", "scale", "chat", "2"))
        first = await until(follower.pods, lambda pods: len(pods) >= 1)
        await mortal_service.kill()
        await until(follower.complaints, lambda said: "cut off" in said)
        await mortal_service.start()
        ok(await budcluster("deployments", "change", "chat", "max_num_seqs=8"))
        assert "runs so already" in ok(await budcluster("deployments", "change", "chat", "max_num_seqs=8"))
        ok(await budcluster("deployments", "rollback", "chat", "--force"))
        await until(follower.pods, lambda pods: len(pods - first) >= 2)
    assert follower.process.returncode == 130
    assert "Traceback" not in await follower.complaints()
    stamped = [line for line in follower.out if re.match(r"\[\S+\] \d{4}-", line)]
    assert len(stamped) == len(set(stamped)), "lines were shown twice"

    (pod, *_) = sorted((await follower.pods()) - first)
    refused = await budcluster("deployments", "logs", "chat", "--pod", "bud-nobody")
    assert refused.exit_code == 4
    assert "There are: " in refused.stderr
    assert pod.startswith("bud-chat-")

    failed = await budcluster("deploy", GATED, "--cluster", "lab", "--name", "gated", "--set", "startup_timeout_s=600")
    assert failed.exit_code == 1
    assert "The model is gated" in failed.stderr
    shown = ok(await budcluster("deployments", "show", "gated"))
    assert re.search("^Next +.*Accept the model's terms", shown, re.MULTILINE)
    assert re.search("^prometheus +ours +READY", ok(await budcluster("clusters", "addons", "lab")), re.MULTILINE)

    ok(await budcluster("deployments", "delete", "gated"))
    ok(await budcluster("deployments", "delete", "chat"))
    ok(await budcluster("clusters", "delete", "lab"))
    assert await budcluster.json("clusters", "list") == []


async def _crash(server: KubernetesServer) -> None:
    """The one copy that runs fails with an error of CUDA."""

    def crash() -> None:
        (pod,) = server.cluster.store.list("Pod", NAMESPACE)
        simulation = server.cluster.simulation
        assert simulation is not None
        simulation.inject("log_error", pod=pod["metadata"]["name"], namespace=NAMESPACE, kind="cuda")

    await asyncio.to_thread(server.call, crash)
