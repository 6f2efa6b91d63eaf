"""`./deploy/start_dev.sh` as a person types it: the main job runs by itself, or says why it cannot."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """The script, with a state folder of its own."""
    if not (ROOT / ".venv/.made-for").exists() or (ROOT / ".venv/.made-for").read_text().strip() != str(ROOT):
        pytest.skip("the script would first make an environment for this checkout: run `make env`")

    def start(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        return subprocess.run(
            [ROOT / "deploy/start_dev.sh", *arguments, "--state-dir", tmp_path / "state"],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    yield start
    start("--stop")


def test_the_demo_leaves_a_serving_model_or_says_why_it_cannot(start: Start) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    fast = ("--demo", "--detach", "--port", port, "--clock-factor", "120")

    unfit = start(*fast, "--nodes", "gaudi3:1")
    assert unfit.returncode == 1
    assert "has no image for HABANA" in unfit.stdout
    assert "it did not start; the reason is above" in unfit.stderr
    assert "Traceback" not in unfit.stdout + unfit.stderr
    assert start("--stop").stdout == "budcluster: nothing is running.\n"

    serving = start(*fast)
    assert serving.returncode == 0, serving.stdout + serving.stderr
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/deployments?status=RUNNING") as answer:
        (deployment,) = json.load(answer)["items"]
    assert deployment["replicas"] == {"desired": 2, "ready": 2}
    assert deployment["servable"]
    _, _, said = serving.stdout.partition("Try next:")
    assert f"deployments logs {deployment['name']} -f" in said
    assert "clusters onboard" not in said

    assert start("--stop").returncode == 0
    with socket.create_server(("127.0.0.1", int(port))):
        pass  # nothing is left of it


def test_a_demo_without_a_cluster_is_wrong_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "devstack", "--demo", "--no-cluster"],
        cwd=ROOT / "deploy", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--no-cluster" in done.stderr
