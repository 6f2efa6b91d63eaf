"""Ansible's kubernetes.core, run by ansible-runner."""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import ansible_runner
import pytest

from tests.contracts.kubernetes.driver import Cluster
from tests.contracts.kubernetes.objects import definition

PLAYBOOK = Path(__file__).with_name("playbook.yml")
BATTERY = Path(__file__).with_name("chart")


@pytest.mark.slow
@pytest.mark.timeout(240)  # some thirty processes of Ansible, a second or two each
def test_every_task_of_the_playbook_holds(
    tmp_path: Path, cluster: Cluster, namespace: str, kind_name: str, tool_home: dict[str, str]
) -> None:
    failures: list[str] = []

    def collect(event: dict[str, Any]) -> bool:
        if event["event"] == "runner_on_failed":
            failures.append(event["stdout"])
        return True

    (tmp_path / "runner").mkdir()
    run = ansible_runner.run(
        private_data_dir=str(tmp_path / "runner"),
        playbook=str(PLAYBOOK),
        inventory="localhost,",
        extravars={
            "kubeconfig": str(cluster.kubeconfig),
            "namespace": namespace,
            "simulated": cluster.simulated,
            "chart": str(BATTERY),
            "kind": kind_name,
            "definition": definition(f"{kind_name.lower()}s", kind_name),
        },
        envvars={
            **tool_home,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{tool_home['PATH']}",
            "ANSIBLE_LOCALHOST_WARNING": "False",
        },
        event_handler=collect,
        cancel_callback=threading.Event().is_set,
        quiet=True,
    )
    assert failures == []
    assert run.rc == 0, run.stdout.read()
