"""Helm 4: the life of a release, hooks, waiting, and going back."""

from pathlib import Path

import pytest

from tests.contracts.kubernetes.driver import Cluster, Tool, eventually
from tests.contracts.kubernetes.objects import MISSING

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BATTERY = str(Path(__file__).with_name("chart"))
WAIT = ("--wait", "--timeout", "90s")


def test_a_release_is_installed_listed_and_removed(helm: Tool, kubectl: Tool) -> None:
    assert helm.json("list") == []
    installed = helm.json("install", "one", BATTERY, *WAIT)
    assert installed["info"]["status"] == "deployed"
    assert [(each["name"], each["status"], each["revision"]) for each in helm.json("list")] == [
        ("one", "deployed", "1")
    ]
    words = kubectl.json("get", "configmap", "one-words")["data"]
    assert words["message"] == "hello"
    assert words["kubernetes"].startswith("v1.")
    assert (words["hasDeployments"], words["namespaceFound"]) == ("true", "true")
    assert kubectl.json("get", "deployment", "one")["status"]["readyReplicas"] == 1
    assert helm.json("status", "one")["version"] == 1
    helm("uninstall", "one", *WAIT)
    assert helm.json("list") == []
    assert "NotFound" in kubectl.refused("get", "deployment", "one")


def test_a_name_in_use_is_refused(helm: Tool) -> None:
    helm("install", "one", BATTERY)
    assert "cannot reuse a name that is still in use" in helm.refused("install", "one", BATTERY).replace(
        "re-use", "reuse"
    )


def test_what_belongs_to_nobody_is_not_taken_over(helm: Tool, kubectl: Tool) -> None:
    kubectl("create", "configmap", "one-words")
    complaint = helm.refused("install", "one", BATTERY)
    assert "invalid ownership metadata" in complaint


def test_a_release_is_upgraded_and_rolled_back(helm: Tool, kubectl: Tool) -> None:
    helm("upgrade", "--install", "one", BATTERY, "--set", "replicas=2", *WAIT)
    helm("upgrade", "one", BATTERY, "--set", "message=changed", *WAIT)
    assert helm.json("get", "values", "one") == {"message": "changed"}
    assert kubectl.json("get", "configmap", "one-words")["data"]["message"] == "changed"
    helm("rollback", "one", "1", *WAIT)
    assert kubectl.json("get", "configmap", "one-words")["data"]["message"] == "hello"
    assert kubectl.json("get", "deployment", "one")["spec"]["replicas"] == 2
    history = [(each["revision"], each["status"]) for each in helm.json("history", "one")]
    assert history == [(1, "superseded"), (2, "superseded"), (3, "deployed")]


def test_an_upgrade_that_cannot_become_ready_is_taken_back(helm: Tool, kubectl: Tool) -> None:
    helm("install", "one", BATTERY, *WAIT)
    complaint = helm.refused(
        "upgrade", "one", BATTERY, "--set", f"image={MISSING}", "--rollback-on-failure", "--wait", "--timeout", "6s"
    )
    assert "has been rolled back" in complaint
    assert [each["status"] for each in helm.json("history", "one")] == ["superseded", "failed", "deployed"]
    image = kubectl.json("get", "deployment", "one")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.k8s.io/pause:3.10"


def test_an_installation_that_cannot_become_ready_leaves_nothing(helm: Tool, kubectl: Tool) -> None:
    helm.refused(
        "install", "one", BATTERY, "--set", f"image={MISSING}", "--rollback-on-failure", "--wait", "--timeout", "6s"
    )
    assert helm.json("list", "--failed") == []
    eventually(lambda: not kubectl("get", "deployments", "--output", "name"))


def test_hooks_and_jobs_are_waited_for(helm: Tool, kubectl: Tool) -> None:
    helm("install", "one", BATTERY, "--set", "jobs=true", "--wait-for-jobs", *WAIT)
    jobs = kubectl.json("get", "jobs")["items"]
    assert {each["metadata"]["name"]: each["status"]["succeeded"] for each in jobs} == {"one-before": 1, "one-among": 1}


def test_every_common_kind_is_installed_and_removed(helm: Tool, kubectl: Tool, cluster: Cluster) -> None:
    if not cluster.simulated:
        pytest.skip("a real cluster may lack load balancers and a default storage class")
    helm("install", "one", BATTERY, "--set", "full=true", *WAIT)
    nodes = len(kubectl.json("get", "nodes")["items"])
    assert kubectl.json("get", "daemonset", "one-everywhere")["status"]["numberReady"] == nodes
    assert kubectl.json("get", "statefulset", "one-kept")["status"]["readyReplicas"] == 2
    claims = kubectl("get", "pvc", "--output", "jsonpath={.items[*].metadata.name}")
    assert claims == "data-one-kept-0 data-one-kept-1 one-shared"
    assert kubectl.json("get", "service", "one-outside")["status"]["loadBalancer"]["ingress"]
    helm("uninstall", "one", *WAIT)
    left = kubectl("get", "daemonsets,statefulsets,services,ingresses,roles,rolebindings", "--output", "name")
    assert left == ""
    # The claims that a StatefulSet's template made stay, as in every cluster.
    assert "data-one-kept-0" in kubectl("get", "pvc", "--output", "name")


def test_a_template_is_validated_by_the_cluster(helm: Tool) -> None:
    rendered = helm("template", "one", BATTERY, "--validate", "--set", "full=true")
    assert "kind: StatefulSet" in rendered
    assert 'namespaceFound: "true"' in rendered


def test_eight_releases_are_installed_at_once(helm: Tool) -> None:
    names = [f"release-{number}" for number in range(8)]
    running = [helm.started("install", name, BATTERY, *WAIT) for name in names]
    ended = [(process.communicate(timeout=110)[0], process.returncode) for process in running]
    assert [code for _, code in ended] == [0] * 8, ended
    assert sorted(each["name"] for each in helm.json("list")) == names


def test_a_missing_release_is_named(helm: Tool) -> None:
    assert "release: not found" in helm.refused("status", "none")
