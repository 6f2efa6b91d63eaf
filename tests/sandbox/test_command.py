"""`python -m sandbox`, as a person starts it."""

import base64
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from sandbox.__main__ import main

DEPLOY = Path(__file__).parents[2] / "deploy"
DEADLINE_S = 30.0


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    argv = [sys.executable, "-m", "sandbox", "--nodes", "cpu:1", "--kubeconfig", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(DEPLOY)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Simulated Kubernetes at https://127.0.0.1:")
            assert f"KUBECONFIG={path}" in process.stdout.readline()
            assert _nodes(yaml.safe_load(path.read_text())) == ["cpu-1"]
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=DEADLINE_S) == 0


def test_unknown_nodes_are_refused_with_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "abacus:2"]) == 2
    assert "no node profile is called 'abacus'; known ones:" in capsys.readouterr().err


def test_help_names_the_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "h100x8" in capsys.readouterr().out


def _nodes(kubeconfig: dict[str, list[dict[str, dict[str, str]]]]) -> list[str]:
    cluster = kubeconfig["clusters"][0]["cluster"]
    trusted = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    headers = {"authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"}
    deadline = time.monotonic() + DEADLINE_S
    with httpx.Client(base_url=cluster["server"], verify=trusted, headers=headers) as session:
        while time.monotonic() < deadline:
            try:
                items = session.get("/api/v1/nodes").json()["items"]
            except httpx.TransportError:
                continue
            return [item["metadata"]["name"] for item in items]
    pytest.fail("the server never answered")
