"""The commands in the heads of the playbooks work as an operator would paste them."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from budcluster.config import PROJECT_ROOT
from sandbox.kubernetes.server import KubernetesServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FOLDER = PROJECT_ROOT / "playbooks"
NAMES = ("deploy_runtime", "install_hami", "install_nfd", "onboard")


def commands(playbook: str) -> list[str]:
    """What the head of a playbook says to type, with a cluster and a node that there are."""
    head = "".join(re.findall(r"^#(.*\n)", (FOLDER / f"{playbook}.yml").read_text(), re.MULTILINE))
    found = re.findall(r"^   (ansible-playbook (?:.*\\\n)*.*)$", head, re.MULTILINE)
    return [one.replace("ID", "b5a8f6c0-2e7a-4f6a").replace("NODE", "h100x8-1").replace("NAME", "lab") for one in found]


async def typed(command: str, variables: dict[str, str]) -> str:
    shell = await asyncio.create_subprocess_exec(
        "bash", "-ec", command, cwd=PROJECT_ROOT, env=variables,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await shell.communicate()
    assert shell.returncode == 0, output.decode()
    return output.decode()


async def test_each_command_works_and_together_they_are_all(
    gpu_cluster: KubernetesServer, tool_home: dict[str, str], tmp_path: Path
) -> None:
    gpu_cluster.write_kubeconfig(tmp_path / "kubeconfig")
    path = f"{Path(sys.executable).parent}:{tool_home['PATH']}"
    variables = {**tool_home, "PATH": path, "K8S_AUTH_KUBECONFIG": str(tmp_path / "kubeconfig")}
    assert {file.stem for file in FOLDER.glob("*.yml")} == set(NAMES)

    async def all_of(playbook: str) -> int:
        typed_in = [await typed(command, variables) for command in commands(playbook)]
        return len(typed_in)

    assert await asyncio.gather(*(all_of(name) for name in NAMES)) == [1, 2, 1, 2]
