"""The gateway to Helm, with a Helm of our own that keeps its releases in a file and writes down how it was called."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from budcluster.kit.command import Line
from budcluster.kit.process import ProcessSlots
from budcluster.kube import helm_errors as errors
from budcluster.kube.helm import ChartRef, HelmGateway, Release, Revision
from budcluster.kube.helm_command import secrets_in
from budcluster.kube.helm_errors import OwnedByAnother, classify
from budcluster.kube.kubeconfig import read_kubeconfig
from tests.kube.certificates import NOW, make_document

SCRIPT = """
import json, pathlib, sys
home = pathlib.Path({home!r})
verb, rest = sys.argv[1], sys.argv[2:]
state = json.loads((home / "state").read_text())
values = sys.stdin.read() if "-" in rest else ""
with (home / "calls").open("a") as calls:
    calls.write(json.dumps({{"argv": sys.argv[1:], "values": values}}) + "\\n")
print("a complaint", file=sys.stderr)
if verb == "upgrade":
    labels = {{"budcluster.io/managed": "true"}} if "--labels" in rest else {{}}
    said = rest[rest.index("--description") + 1] if "--description" in rest else "Upgrade complete"
    state = {{"status": "deployed", "values": json.loads(values), "labels": labels, "description": said}}
elif verb == "uninstall":
    state = None
elif verb == "rollback":
    state["status"] = "deployed"
(home / "state").write_text(json.dumps(state))
if state is None and verb in ("history", "get"):
    sys.exit("Error: release: not found")
said = state and state.get("description", "")
row = {{"revision": 1, "status": state and state["status"], "chart": "demo-1.0", "description": said}}
answers = {{"history": [row], "show": {{"name": "demo", "version": "1.0"}}}}
about = {{"status": state and state["status"], "description": said}}
chart = {{"metadata": answers["show"]}}
answers["upgrade"] = {{"name": "demo", "version": 1, "info": about, "chart": chart}}
answers["get"] = state and ({{"labels": state["labels"]}} if rest[0] == "metadata" else state["values"])
print(json.dumps(answers.get(verb, {{}})))
"""


class Helm:
    """A Helm with one release."""

    def __init__(self, home: Path) -> None:
        self._home = home
        program = home / "helm"
        program.write_text(f"#!{sys.executable}\n" + SCRIPT.format(home=str(home)))
        program.chmod(0o700)
        self.holds(None)
        self.lines: list[str] = []
        kubeconfig = read_kubeconfig(json.dumps(make_document()), now=NOW)
        self.gateway = HelmGateway(
            kubeconfig, home=home, slots=ProcessSlots(1), on_line=self._told, executable=str(program)
        )

    def _told(self, line: Line) -> None:
        self.lines.append(line.text)

    def holds(self, status: str | None, *, ours: bool = True, values: dict[str, Any] | None = None) -> None:
        labels = {"budcluster.io/managed": "true"} if ours else {}
        state = {"status": status, "values": values or {}, "labels": labels} if status else None
        (self._home / "state").write_text(json.dumps(state))

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self._home / "calls").read_text().splitlines()]

    @property
    def changes(self) -> list[str]:
        verbs = [call["argv"][0] for call in self.calls]
        return [verb for verb in verbs if verb in {"upgrade", "uninstall", "rollback"}]

    async def ensure(self, values: dict[str, Any], *, repair: str | None = None) -> Revision:
        wanted = Release("demo", "apps", ChartRef("demo", "1.0"), values)
        return await self.gateway.ensure(wanted, timeout_s=20, repair=repair)


@pytest.fixture
def tool(tmp_path: Path) -> Helm:
    return Helm(tmp_path)


async def test_a_missing_release_is_installed_and_marked_as_ours(tool: Helm) -> None:
    made = await tool.ensure({"a": 1})
    assert (made.is_ours, made.number, made.chart) == (True, 1, "demo-1.0")
    assert [call["argv"][0] for call in tool.calls] == ["history", "upgrade"]


async def test_nothing_is_done_when_nothing_differs(tool: Helm) -> None:
    tool.holds("deployed", values={"a": 1})
    await tool.ensure({"a": 1})
    assert tool.changes == []


async def test_other_values_are_brought_in(tool: Helm) -> None:
    tool.holds("deployed", values={"a": 1})
    await tool.ensure({"a": 2})
    assert tool.changes == ["upgrade"]


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        ("failed", ["upgrade"]),
        ("pending-install", ["uninstall", "upgrade"]),
        ("uninstalling", ["uninstall", "upgrade"]),
        ("pending-upgrade", ["rollback", "upgrade"]),
        ("pending-rollback", ["rollback", "upgrade"]),
    ],
)
async def test_what_a_killed_helm_left_is_repaired(tool: Helm, status: str, changes: list[str]) -> None:
    tool.holds(status, values={"a": 1})
    await tool.ensure({"a": 2})
    assert tool.changes == changes


async def test_a_repair_is_done_once_for_each_occasion_although_the_values_are_there(tool: Helm) -> None:
    tool.holds("deployed", values={"a": 1})
    for occasion in ("Monday", "Monday", "Tuesday"):
        await tool.ensure({"a": 1}, repair=occasion)
    upgrades = [call["argv"] for call in tool.calls if call["argv"][0] == "upgrade"]
    assert [argv[argv.index("--description") + 1] for argv in upgrades] == ["Monday", "Tuesday"]
    assert all("--force-conflicts" in argv for argv in upgrades)


async def test_fields_that_others_took_do_not_stop_the_repair_of_a_half_upgrade(tool: Helm) -> None:
    tool.holds("pending-upgrade", values={"a": 1})
    await tool.ensure({"a": 2}, repair="Monday")
    changes = [call["argv"] for call in tool.calls if call["argv"][0] in {"rollback", "upgrade"}]
    assert [("--force-conflicts" in argv) for argv in changes] == [True, True]


@pytest.mark.parametrize("status", ["deployed", "failed", "pending-install", "pending-upgrade"])
async def test_a_release_of_somebody_else_is_left_alone(tool: Helm, status: str) -> None:
    tool.holds(status, ours=False)
    with pytest.raises(OwnedByAnother):
        await tool.ensure({"a": 1})
    assert tool.changes == []


async def test_values_go_in_as_they_are_and_never_on_a_command_line(tool: Helm) -> None:
    text = "{{ lookup('pipe','id') }}; $(id) `id` \\ ,a=b"
    await tool.ensure({"note": text})
    (upgrade,) = [call for call in tool.calls if call["argv"][0] == "upgrade"]
    assert json.loads(upgrade["values"]) == {"note": text}
    assert not any("lookup" in part or "a-bearer-token" in part for call in tool.calls for part in call["argv"])


async def test_only_complaints_of_changes_are_told_never_answers(tool: Helm) -> None:
    await tool.ensure({"password": "hunter2hunter2"})
    assert tool.lines == ["a complaint"]


async def test_releases_are_listed_whole_with_those_whose_removal_was_begun(tool: Helm) -> None:
    assert await tool.gateway.list_releases() == []
    (asked,) = [call["argv"] for call in tool.calls]
    assert {"--deployed", "--failed", "--pending", "--uninstalling", "--all-namespaces"} <= set(asked)
    assert int(asked[asked.index("--max") + 1]) >= 100_000


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Error: release: not found", errors.ReleaseNotFound),
        ("Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress", errors.ReleaseBusy),
        ("Error: INSTALLATION FAILED: cannot re-use a name that is still in use", errors.ReleaseBusy),
        ("Error: Kubernetes cluster unreachable: Get https://10.0.0.5", errors.ClusterUnreachable),
        (
            "Error: Kubernetes cluster unreachable: the server has asked for the client to provide credentials",
            errors.CredentialRefused,
        ),
        ("Error: unable to continue with install: invalid ownership metadata", errors.OwnedByAnother),
        ("Error: execution error at (demo/templates/x.yaml:1:4): no", errors.RenderFailed),
        (
            "Error: chart requires kubeVersion: >=1.40 which is incompatible with Kubernetes v1.36",
            errors.RenderFailed,
        ),
        ("Error: failed to fetch https://charts/demo.tgz : 404", errors.ChartUnavailable),
        ("Error: context deadline exceeded", errors.NotReadyInTime),
        (
            'Error: pods "x" is forbidden: User "budcluster" cannot create resource "pods"',
            errors.PermissionMissing,
        ),
        ('Error: pods "x" is forbidden: exceeded quota: gpus', errors.ObjectRefused),
        ("Error: something new", errors.HelmError),
    ],
)
def test_what_helm_says_becomes_a_fact(said: str, kind: type[errors.HelmError]) -> None:
    error = classify(["noise", said])
    assert type(error) is kind
    assert said in error.sentence


def test_why_a_release_is_not_deleted_is_found_between_the_lines_for_developers() -> None:
    why = (
        r"daemonsets.apps \"nfd\" is forbidden: User \"u\" cannot delete resource \"daemonsets\" in API group \"apps\""
    )
    error = classify([
        'level=DEBUG msg="ignoring delete failure" error="serviceaccounts is forbidden: User: release: not found"',
        f'level=DEBUG msg="uninstall: Failed to delete release" error="[{why}]"',
        "Error: failed to delete release: nfd",
    ])  # fmt: skip
    assert type(error) is errors.PermissionMissing
    assert 'cannot delete resource "daemonsets"' in error.sentence


def test_an_error_without_words_says_so() -> None:
    assert classify([]).sentence == "Helm failed without saying why."


def test_values_under_secret_names_are_masked_at_any_depth_and_others_are_not() -> None:
    values = {
        "password": "one-secret",
        "deep": [{"hf_token": "two-secret", "apiKey": {"inner": "three-secret"}}],
        "secretName": "a-plain-name",
        "imagePullSecrets": ["a-plain-list"],
        "token": "short",
    }
    assert secrets_in(json.dumps(values).encode()) == ["one-secret", "two-secret", "three-secret"]
    assert secrets_in(None) == []
