"""`budcluster clusters onboard`: what it asks for, and in which order."""

import json
from pathlib import Path

import httpx
import pytest

from budcluster.bootstrap import Service
from tests.cli.conftest import CommandLine
from tests.kube.certificates import make_document


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    file = tmp_path / "lab.yaml"
    file.write_text(json.dumps(make_document()))
    return str(file)


async def test_only_what_was_said_is_chosen(
    budcluster: CommandLine, client: httpx.AsyncClient, kubeconfig: str
) -> None:
    begun = await budcluster("clusters", "onboard", kubeconfig, "--gpu-sharing", "none", "--no-watch")
    assert begun.exit_code == 0, begun.output
    (cluster,) = (await client.get("/clusters")).json()["items"]
    settings = (await client.get(f"/clusters/{cluster['id']}")).json()["settings"]
    assert (cluster["name"], settings["gpu_sharing"], settings["manage_addons"]) == ("lab", "none", True)
    busy = await budcluster("clusters", "onboard", kubeconfig, "--no-manage-addons", "--no-watch")
    assert busy.exit_code == 4
    assert "is busy with onboard_cluster" in busy.stderr


async def test_the_service_is_asked_before_an_account_is_made(
    budcluster: CommandLine, client: httpx.AsyncClient, service: Service
) -> None:
    """With a context that nobody has, making an account ends with code 1."""
    asked = ("clusters", "onboard", "--context", "nobody-has-this")
    assert (await budcluster(*asked, BUDCLUSTER_URL="http://127.0.0.1:1")).exit_code == 3
    assert (await budcluster(*asked)).exit_code == 1
    (cluster,) = (await client.get("/clusters")).json()["items"]
    await client.delete(f"/clusters/{cluster['id']}")
    refused = await budcluster(*asked)
    assert refused.exit_code == 4
    assert "is being deleted" in refused.stderr
