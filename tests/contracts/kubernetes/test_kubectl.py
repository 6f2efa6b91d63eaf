"""kubectl: every verb that people and scripts use daily."""

import json
import uuid

import pytest

from tests.contracts.kubernetes.driver import Cluster, Tool, as_yaml, eventually
from tests.contracts.kubernetes.objects import (
    BUSYBOX,
    PAUSE,
    config_map,
    container,
    custom,
    definition,
    deployment,
    pod,
    service,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TALKING = [container(BUSYBOX, command=["sh", "-c", "echo hello; sleep 3600"])]


def test_a_new_user_finds_the_cluster_and_what_it_serves(kubectl: Tool) -> None:
    version = kubectl.json("version")
    assert version["serverVersion"]["gitVersion"].startswith("v1.")
    assert "is running at" in kubectl("cluster-info")
    assert kubectl("get", "--raw", "/readyz") == "ok"
    resources = kubectl("api-resources", "--no-headers", "--output", "wide")
    deployments = [line.split() for line in resources.splitlines() if line.startswith("deployments ")]
    assert [words[:5] for words in deployments] == [["deployments", "deploy", "apps/v1", "true", "Deployment"]]


def test_short_names_are_not_ambiguous(kubectl: Tool) -> None:
    done = kubectl.run("get", "deploy,po,svc,cm,ds,sts,rs,pvc,sa,ep,ing")
    assert done.returncode == 0
    assert "ambiguous" not in done.stderr


def test_a_namespace_is_made_and_goes_with_all_it_holds(kubectl: Tool) -> None:
    name = f"contract-{uuid.uuid4().hex[:8]}"
    assert kubectl("create", "namespace", name) == f"namespace/{name} created\n"
    kubectl("--namespace", name, "create", "configmap", "kept", "--from-literal=a=1")
    assert f'namespace "{name}" deleted' in kubectl("delete", "namespace", name)
    assert "NotFound" in kubectl.refused("get", "namespace", name)
    assert "NotFound" in kubectl.refused("--namespace", name, "get", "configmap", "kept")


def test_apply_says_created_unchanged_configured(kubectl: Tool) -> None:
    made = deployment("web")
    assert kubectl.apply(made) == "deployment.apps/web created\n"
    assert kubectl.apply(made) == "deployment.apps/web unchanged\n"
    made["spec"]["replicas"] = 2
    assert kubectl.apply(made) == "deployment.apps/web configured\n"
    assert kubectl.json("get", "deployment", "web")["spec"]["replicas"] == 2


def test_apply_removes_what_the_new_manifest_leaves_out(kubectl: Tool) -> None:
    kubectl.apply(config_map("shrinking", a="1", b="2"))
    kubectl.apply(config_map("shrinking", a="1"))
    assert kubectl.json("get", "configmap", "shrinking")["data"] == {"a": "1"}


def test_apply_sends_only_what_the_server_knows(kubectl: Tool) -> None:
    apply = ("apply", "--filename", "-")
    wrong = config_map("wrong", a="1") | {"nonsense": True}
    assert 'unknown field "nonsense"' in kubectl.refused(*apply, stdin=as_yaml(wrong))
    assert ".nonsense: field not declared in schema" in kubectl.refused(*apply, "--server-side", stdin=as_yaml(wrong))
    warned = kubectl.run(*apply, "--validate=warn", stdin=as_yaml(wrong))
    assert (warned.returncode, warned.stderr) == (0, 'Warning: unknown field "nonsense"\n')
    assert "nonsense" not in kubectl.json("get", "configmap", "wrong")
    number = config_map("wrong") | {"data": {"a": 1}}
    assert "cannot unmarshal number" in kubectl.refused(*apply, stdin=as_yaml(number))
    kubectl("label", "namespace", kubectl.namespace, "pod-security.kubernetes.io/warn=restricted")
    assert 'Warning: would violate PodSecurity "restricted:latest"' in kubectl.run(
        *apply, stdin=as_yaml(deployment("web"))
    ).stderr  # fmt: skip


def test_server_side_apply_guards_the_fields_of_other_managers(kubectl: Tool) -> None:
    apply = ("apply", "--server-side", "--filename", "-")
    kubectl(*apply, "--field-manager=first", stdin=as_yaml(config_map("shared", a="1", b="2")))
    complaint = kubectl.refused(*apply, "--field-manager=second", stdin=as_yaml(config_map("shared", a="9")))
    assert 'Apply failed with 1 conflict: conflict with "first"' in complaint
    assert ".data.a" in complaint
    kubectl(*apply, "--field-manager=second", "--force-conflicts", stdin=as_yaml(config_map("shared", a="9")))
    assert kubectl.json("get", "configmap", "shared")["data"] == {"a": "9", "b": "2"}
    kubectl(*apply, "--field-manager=first", stdin=as_yaml(config_map("shared")))
    assert kubectl.json("get", "configmap", "shared")["data"] == {"a": "9"}


def test_dry_runs_and_diffs_change_nothing(kubectl: Tool) -> None:
    assert "created (server dry run)" in kubectl(
        "apply", "--dry-run=server", "--filename", "-", stdin=as_yaml(config_map("phantom", a="1"))
    )
    assert "NotFound" in kubectl.refused("get", "configmap", "phantom")
    kubectl.apply(config_map("settled", a="1"))
    assert kubectl("diff", "--filename", "-", stdin=as_yaml(config_map("settled", a="1"))) == ""
    changed = kubectl.run("diff", "--filename", "-", stdin=as_yaml(config_map("settled", a="2")))
    assert changed.returncode == 1
    assert "+  a: " in changed.stdout
    assert kubectl.json("get", "configmap", "settled")["data"] == {"a": "1"}


def test_get_prints_tables_and_selects(kubectl: Tool) -> None:
    kubectl.apply(pod("one", labels={"team": "red"}), pod("two", labels={"team": "blue"}))
    kubectl("wait", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=60s")
    table = kubectl("get", "pods").splitlines()
    assert table[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert table[1].split()[:4] == ["one", "1/1", "Running", "0"]
    assert kubectl("get", "pods", "--output", "wide").splitlines()[0].split()[5:7] == ["IP", "NODE"]
    assert kubectl("get", "pods", "--selector", "team=red", "--output", "name") == "pod/one\n"
    assert kubectl("get", "pods", "--selector", "team notin (red)", "--output", "name") == "pod/two\n"
    assert kubectl("get", "pods", "--field-selector", "metadata.name=two", "--output", "name") == "pod/two\n"
    assert kubectl("get", "pods", "--output", "jsonpath={.items[*].metadata.name}") == "one two"
    assert kubectl.json("get", "pod", "one")["status"]["phase"] == "Running"
    assert "team=red" in kubectl("get", "pods", "--show-labels")
    assert "No resources found" in kubectl.run("get", "cronjobs").stderr


def test_get_watches(kubectl: Tool) -> None:
    kubectl.apply(config_map("before", a="1"))
    with kubectl.started("get", "configmaps", "--watch", "--output", "name") as watching:
        assert watching.stdout is not None
        lines = iter(watching.stdout)
        while next(lines) != "configmap/before\n":
            pass
        kubectl.apply(config_map("after", a="1"))
        while next(lines) != "configmap/after\n":
            pass
        watching.terminate()


def test_a_deployment_is_rolled_out_scaled_changed_and_restarted(kubectl: Tool) -> None:
    kubectl.apply(deployment("web", replicas=2))
    assert 'deployment "web" successfully rolled out' in kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("scale", "deployment/web", "--replicas=3")
    kubectl("wait", "--for=jsonpath={.status.readyReplicas}=3", "deployment/web", "--timeout=60s")
    kubectl("set", "image", "deployment/web", "main=registry.k8s.io/pause:3.9")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    images = kubectl(
        "get", "pods", "--selector", "app=web", "--output", "jsonpath={.items[*].spec.containers[*].image}"
    )
    assert "registry.k8s.io/pause:3.9" in images
    kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert len(kubectl("rollout", "history", "deployment/web").strip().splitlines()) == 5
    kubectl("rollout", "undo", "deployment/web")
    kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")


def test_logs_and_commands_come_from_the_container(kubectl: Tool) -> None:
    kubectl.apply(deployment("talker", containers=TALKING))
    kubectl("wait", "--for=condition=Available", "deployment/talker", "--timeout=60s")
    name = kubectl("get", "pods", "--selector", "app=talker", "--output", "jsonpath={.items[0].metadata.name}")
    eventually(lambda: kubectl("logs", name).strip())
    assert kubectl("logs", "deployment/talker") == kubectl("logs", name)
    assert len(kubectl("logs", name, "--tail=1").splitlines()) == 1
    assert kubectl("exec", name, "--", "echo", "from inside") == "from inside\n"
    with kubectl.started("logs", "--follow", name) as following:
        assert following.stdout is not None
        assert following.stdout.readline().strip()
        following.terminate()


def test_describe_tells_of_pods_and_nodes(kubectl: Tool) -> None:
    kubectl.apply(pod("plain"))
    kubectl("wait", "--for=condition=Ready", "pod/plain", "--timeout=60s")
    told = eventually(lambda: told if "Scheduled" in (told := kubectl("describe", "pod", "plain")) else "")
    assert f"Image:          {PAUSE}" in told
    assert "Successfully assigned" in told
    node = kubectl("get", "pod", "plain", "--output", "jsonpath={.spec.nodeName}")
    assert "Allocatable:" in kubectl("describe", "node", node)


def test_the_three_kinds_of_patches(kubectl: Tool) -> None:
    kubectl.apply(deployment("web"))
    added = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": PAUSE}]}}}}
    kubectl("patch", "deployment", "web", "--type=strategic", "--patch", json.dumps(added))
    containers = kubectl.json("get", "deployment", "web")["spec"]["template"]["spec"]["containers"]
    assert sorted(each["name"] for each in containers) == ["main", "side"]
    kubectl(
        "patch", "deployment", "web", "--type=merge", "--patch", '{"metadata": {"labels": {"app": null, "b": "2"}}}'
    )
    assert kubectl.json("get", "deployment", "web")["metadata"]["labels"] == {"b": "2"}
    kubectl(
        "patch",
        "deployment",
        "web",
        "--type=json",
        "--patch",
        '[{"op": "replace", "path": "/spec/replicas", "value": 0}]',
    )
    assert kubectl.json("get", "deployment", "web")["spec"]["replicas"] == 0


def test_service_ports_merge_by_number(kubectl: Tool) -> None:
    kubectl.apply(service("web"))
    kubectl("patch", "service", "web", "--patch", '{"spec": {"ports": [{"name": "admin", "port": 8080}]}}')
    assert sorted(port["port"] for port in kubectl.json("get", "service", "web")["spec"]["ports"]) == [80, 8080]


def test_labels_and_annotations_are_set_and_removed(kubectl: Tool) -> None:
    kubectl.apply(config_map("marked"))
    assert kubectl("label", "configmap", "marked", "team=red") == "configmap/marked labeled\n"
    assert "already has a value" in kubectl.refused("label", "configmap", "marked", "team=blue")
    kubectl("label", "configmap", "marked", "team-")
    kubectl("annotate", "configmap", "marked", "note=kept")
    metadata = kubectl.json("get", "configmap", "marked")["metadata"]
    assert "labels" not in metadata
    assert metadata["annotations"]["note"] == "kept"


def test_replace_needs_the_object(kubectl: Tool) -> None:
    assert "NotFound" in kubectl.refused("replace", "--filename", "-", stdin=as_yaml(config_map("whole", a="1")))
    kubectl("create", "--filename", "-", stdin=as_yaml(config_map("whole", a="1")))
    assert "AlreadyExists" in kubectl.refused("create", "--filename", "-", stdin=as_yaml(config_map("whole", a="1")))
    kubectl("replace", "--filename", "-", stdin=as_yaml(config_map("whole", b="2")))
    assert kubectl.json("get", "configmap", "whole")["data"] == {"b": "2"}


def test_a_custom_resource_is_served_at_once(kubectl: Tool, kind_name: str) -> None:
    plural = f"{kind_name.lower()}s"
    kubectl.apply(definition(plural, kind_name))
    kubectl("wait", "--for=condition=Established", f"crd/{plural}.contract.example.com", "--timeout=60s")
    assert "created" in kubectl.apply(custom(kind_name, "first", size=3))
    table = kubectl("get", plural).splitlines()
    assert [line.split()[:2] for line in table] == [["NAME", "SIZE"], ["first", "3"]]
    kubectl("patch", plural, "first", "--type=merge", "--patch", '{"spec": {"size": 4}}')
    assert "configured" in kubectl.apply(custom(kind_name, "first", size=5))
    kubectl("delete", "crd", f"{plural}.contract.example.com")
    eventually(lambda: kubectl.run("get", plural).returncode)


def test_access_is_asked_for_and_tokens_are_made(kubectl: Tool) -> None:
    assert kubectl("auth", "can-i", "create", "deployments") == "yes\n"
    assert kubectl.run("auth", "can-i", "get", "nodes", "--as=nobody").stdout == "no\n"
    kubectl("create", "serviceaccount", "robot")
    assert len(kubectl("create", "token", "robot").strip()) > 20


def test_a_reader_may_look_and_not_touch(kubectl: Tool, cluster: Cluster) -> None:
    kubectl("create", "serviceaccount", "reader")
    kubectl("create", "rolebinding", "reader", "--clusterrole=view", f"--serviceaccount={kubectl.namespace}:reader")
    token = kubectl("create", "token", "reader").strip()
    # An empty kubeconfig user: a client certificate of the administrator would win over the token.
    as_reader = (f"--server={cluster.address}", f"--token={token}", "--user=", "--insecure-skip-tls-verify")
    with_no_config = Tool("kubectl", cluster, kubectl.namespace, kubectl.variables)
    assert eventually(lambda: with_no_config.run(*as_reader, "--kubeconfig=/dev/null", "get", "pods").returncode == 0)
    complaint = with_no_config.refused(*as_reader, "--kubeconfig=/dev/null", "create", "configmap", "no")
    user = f"system:serviceaccount:{kubectl.namespace}:reader"
    assert f'User "{user}" cannot create resource "configmaps" in API group ""' in complaint


def test_a_node_is_tainted_cordoned_and_drained(kubectl: Tool, cluster: Cluster) -> None:
    if not cluster.simulated:
        pytest.skip("nodes of a real cluster are left alone")
    node = kubectl("get", "nodes", "--output", "jsonpath={.items[0].metadata.name}")
    kubectl("taint", "node", node, "contract=1:NoSchedule")
    assert {"key": "contract", "value": "1", "effect": "NoSchedule"} in kubectl.json("get", "node", node)["spec"][
        "taints"
    ]
    kubectl("taint", "node", node, "contract-")
    kubectl("cordon", node)
    assert "SchedulingDisabled" in kubectl("get", "node", node)
    kubectl("drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s")
    kubectl("uncordon", node)
    assert "SchedulingDisabled" not in kubectl("get", "node", node)


def test_a_deleted_deployment_takes_its_pods_along(kubectl: Tool) -> None:
    kubectl.apply(deployment("web", replicas=2))
    kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
    kubectl("delete", "deployment", "web")
    eventually(lambda: not kubectl("get", "pods,replicasets", "--output", "name"))


def test_fields_are_explained(kubectl: Tool) -> None:
    explained = kubectl("explain", "deployment.spec.template.spec.containers")
    assert "FIELD: containers <[]Container>" in explained
    assert "startupProbe\t<Probe>" in explained


def test_use_of_nodes_and_pods_is_measured(kubectl: Tool, cluster: Cluster) -> None:
    if not cluster.simulated:
        pytest.skip("a real cluster may lack the metrics server")
    kubectl.apply(pod("busy"))
    kubectl("wait", "--for=condition=Ready", "pod/busy", "--timeout=60s")
    assert "CPU(cores)" in kubectl("top", "nodes")
    assert eventually(lambda: "busy" in kubectl.run("top", "pods").stdout)
