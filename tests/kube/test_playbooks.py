"""The gateway to Ansible: variables as data, and failures that name their cause."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from budcluster.kit.command import Line, Stream, ToolFailed
from budcluster.kit.process import ProcessSlots
from budcluster.kube.kubeconfig import Kubeconfig, read_kubeconfig
from budcluster.kube.playbooks import (
    AnsibleMissing,
    PlaybookError,
    PlaybookGateway,
    PlaybookMissing,
    TaskFailed,
    _Events,
    as_data,
)
from tests.kube.certificates import NOW, make_document
from tests.waiting import until_true

NASTY = ["{{ lookup('pipe','id') }}", "!vault |", "a: b", "#", "'\"\n", "{% raw %}", "yes", "1", "💥"]


class _Marked(yaml.SafeLoader):
    """Reads `!unsafe` as Ansible does: text that is never a template."""


_Marked.add_constructor("!unsafe", lambda loader, node: ("unsafe", loader.construct_scalar(node)))


def test_every_string_is_data_at_any_depth() -> None:
    document = {
        "note": NASTY[0],
        "claim": {"name": NASTY[1]},
        "nodes": NASTY,
        "count": 3,
        "on": True,
        "none": None,
        "empty": "",
    }
    read = yaml.load(as_data(document), _Marked)
    assert read["note"] == ("unsafe", NASTY[0])
    assert read["claim"] == {"name": ("unsafe", NASTY[1])}
    assert read["nodes"] == [("unsafe", text) for text in NASTY]
    assert (read["count"], read["on"], read["none"], read["empty"]) == (3, True, None, "")


def failure_of(*told: dict[str, Any], stderr: str = "") -> PlaybookError:
    events = _Events(None, None)
    for event in told:
        events.take(Line(Stream.STDOUT, json.dumps(event).encode().hex(), 0))
    return events.failure("onboard.yml", ToolFailed("python", 1, tail=[stderr]))


def test_the_last_task_that_failed_is_named_with_its_message() -> None:
    error = failure_of({"failed": "Verify", "message": "first"}, {"failed": "Bind", "message": "refused"})
    assert isinstance(error, TaskFailed)
    assert (error.task, str(error)) == ("Bind", "Bind: refused")


def test_ansible_that_is_not_installed_is_said_to_be() -> None:
    assert "install ansible-core" in str(failure_of({"ended": "ansible-missing"}))
    missing = failure_of({"text": "ERROR! couldn't resolve module/action 'kubernetes.core.k8s'"})
    assert isinstance(missing, AnsibleMissing)
    assert "KUBERNETES__COLLECTIONS_PATH" in str(missing)


def test_a_playbook_that_cannot_be_read_is_said_to_be() -> None:
    error = failure_of({"text": "ERROR! Syntax Error while loading YAML."}, {"ended": "unusable"})
    assert isinstance(error, PlaybookMissing)
    assert "Syntax Error" in str(error)


def test_an_end_without_any_event_tells_what_was_said() -> None:
    assert "it was killed" in str(failure_of(stderr="it was killed"))


def kubeconfig() -> Kubeconfig:
    return read_kubeconfig(json.dumps(make_document()), now=NOW)


async def test_a_playbook_that_is_not_there_is_missing(tmp_path: Path) -> None:
    gateway = PlaybookGateway(tmp_path, workspace=tmp_path, slots=ProcessSlots(1))
    with pytest.raises(PlaybookMissing, match="ANSIBLE_PLAYBOOKS_PATH"):
        await gateway.run("none.yml", kubeconfig(), variables={}, timeout_s=5)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["- hosts: [", "just text", "- hosts: localhost\n  tasks: 7\n"])
async def test_a_broken_playbook_is_refused_by_ansible_itself(tmp_path: Path, content: str) -> None:
    (tmp_path / "broken.yml").write_text(content)
    gateway = PlaybookGateway(tmp_path, workspace=tmp_path, slots=ProcessSlots(1))
    with pytest.raises(PlaybookMissing, match=r"broken\.yml is no valid playbook"):
        await gateway.run("broken.yml", kubeconfig(), variables={}, timeout_s=60)


@pytest.mark.slow
async def test_text_of_users_stays_text_in_ansible(tmp_path: Path) -> None:
    write = {"ansible.builtin.copy": {"dest": str(tmp_path / "out"), "content": "{{ claim.name }}"}}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"name": "Write", **write}]}
    (tmp_path / "echo.yml").write_text(json.dumps([play]))
    gateway = PlaybookGateway(tmp_path, workspace=tmp_path, slots=ProcessSlots(1))
    run = await gateway.run("echo.yml", kubeconfig(), variables={"claim": {"name": NASTY[0]}}, timeout_s=60)
    assert (run.tasks, run.changed) == (1, 1)
    assert (tmp_path / "out").read_text() == NASTY[0]


@pytest.mark.slow
async def test_ansible_and_its_files_do_not_outlive_a_runner_that_is_killed(tmp_path: Path) -> None:
    ours = f"sleep 6{os.getpid()}"  # nobody else's
    (tmp_path / "wait.yml").write_text(
        f"- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.command: {ours}\n"
    )
    (tmp_path / "variables.yml").write_text("{}")
    request = {"playbook": str(tmp_path / "wait.yml"), "variables": str(tmp_path / "variables.yml")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    runner = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "budcluster.kube.playbook_runner",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert runner.stdin is not None
    runner.stdin.write(json.dumps({**request, "home": str(tmp_path)}).encode())
    runner.stdin.close()
    await until_true(lambda: ours in _command_lines())
    os.killpg(runner.pid, signal.SIGKILL)
    await runner.wait()
    await until_true(lambda: str(tmp_path) not in _command_lines())
    await until_true(lambda: not tmp_path.exists())


def _command_lines() -> str:
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(lines)
