"""The stand-in charts of the add-ons, installed with real Helm, and what they do to a simulated cluster."""

import json
from typing import Any

import pytest

from sandbox.chart_repository import CHARTS
from tests.contracts.kubernetes.driver import Cluster, Tool, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FEATURES = "feature.node.kubernetes.io/"
EVERYWHERE = [{"operator": "Exists"}]


@pytest.fixture(autouse=True)
def _simulated_only(cluster: Cluster) -> None:
    if not cluster.simulated:
        pytest.skip("a real cluster is not changed this deeply")


def install(helm: Tool, name: str, chart: str, **values: Any) -> None:
    """Install into the test's namespace and wait until all that the release holds is ready."""
    helm("install", name, str(CHARTS / chart), "--values", "-", "--wait", "--timeout", "90s", stdin=json.dumps(values))


def nodes(kubectl: Tool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = kubectl.json("get", "nodes")["items"]
    return found


def labels_of(node: dict[str, Any], prefix: str) -> list[str]:
    return [label for label in node["metadata"]["labels"] if label.startswith(prefix)]


def with_nvidia(kubectl: Tool) -> list[dict[str, Any]]:
    return [node for node in nodes(kubectl) if labels_of(node, f"{FEATURES}pci-0302_10de")]


def test_features_are_found_by_the_workers_and_go_with_the_release(helm: Tool, kubectl: Tool) -> None:
    assert not [node for node in nodes(kubectl) if labels_of(node, FEATURES)]
    install(helm, "nfd", "node-feature-discovery", worker={"tolerations": EVERYWHERE})
    workers = kubectl.json("get", "pods", "--selector", "role=worker")["items"]
    assert sorted(each["spec"]["nodeName"] for each in workers) == sorted(
        node["metadata"]["name"] for node in nodes(kubectl)
    )
    eventually(lambda: all(labels_of(node, FEATURES) for node in nodes(kubectl)))
    annotation = "nfd.node.kubernetes.io/feature-labels"
    assert all(annotation in node["metadata"]["annotations"] for node in nodes(kubectl))
    assert len(kubectl.json("get", "nodefeatures")["items"]) == len(nodes(kubectl))
    assert with_nvidia(kubectl)
    helm("uninstall", "nfd", "--wait", "--timeout", "90s")
    eventually(lambda: not [node for node in nodes(kubectl) if labels_of(node, FEATURES)])
    assert kubectl("get", "crd", "nodefeatures.nfd.k8s-sigs.io", "--output", "name").strip()


def test_the_gpu_operator_makes_gpus_allocatable(helm: Tool, kubectl: Tool) -> None:
    install(helm, "nfd", "node-feature-discovery", worker={"tolerations": EVERYWHERE})
    install(helm, "gpu-operator", "gpu-operator", nfd={"enabled": False}, daemonsets={"tolerations": EVERYWHERE})

    def reconciled() -> bool:
        status = kubectl.json("get", "clusterpolicy", "cluster-policy").get("status", {})
        return {"type": "Ready", "status": "True", "reason": "Reconciled"}.items() <= next(
            (each for each in status.get("conditions", []) if each["type"] == "Ready"), {}
        ).items()

    eventually(reconciled)
    eventually(
        lambda: all(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) > 0 for node in with_nvidia(kubectl))
    )
    assert all(node["metadata"]["labels"].get("nvidia.com/gpu.product") for node in with_nvidia(kubectl))
    helm("uninstall", "gpu-operator", "--wait", "--timeout", "90s")
    eventually(
        lambda: not kubectl("get", "daemonsets", "--selector", "app=nvidia-device-plugin-daemonset", "--output", "name")
    )
    helm("uninstall", "nfd", "--wait", "--timeout", "90s")


def test_hami_registers_the_nodes_that_are_labelled_for_it(helm: Tool, kubectl: Tool) -> None:
    install(helm, "nfd", "node-feature-discovery", worker={"tolerations": EVERYWHERE})
    eventually(lambda: with_nvidia(kubectl))
    values = {"devicePlugin": {"enabled": False}, "nfd": {"enabled": False}, "daemonsets": {"tolerations": EVERYWHERE}}
    install(helm, "gpu-operator", "gpu-operator", **values)
    eventually(lambda: kubectl("get", "runtimeclass", "nvidia", "--ignore-not-found", "--output", "name"))
    chosen = with_nvidia(kubectl)[0]["metadata"]["name"]
    kubectl("label", "node", chosen, "gpu=on")
    plugin = {"runtimeClassName": "nvidia", "tolerations": EVERYWHERE, "service": {"type": "ClusterIP"}}
    install(helm, "hami", "hami", devicePlugin=plugin, scheduler={"service": {"type": "ClusterIP"}})
    pods = kubectl.json("get", "pods", "--selector", "app.kubernetes.io/component=hami-device-plugin")["items"]
    assert [each["spec"]["nodeName"] for each in pods] == [chosen]

    def registered() -> list[str]:
        return [
            node["metadata"]["name"]
            for node in nodes(kubectl)
            if "hami.io/node-nvidia-register" in node["metadata"].get("annotations", {})
        ]

    assert eventually(registered) == [chosen]
    helm("uninstall", "hami", "--wait", "--timeout", "90s")
    assert registered() == [chosen]  # the real one leaves its annotations too
    kubectl("annotate", "node", chosen, "hami.io/node-nvidia-register-")
    kubectl("label", "node", chosen, "gpu-")
    helm("uninstall", "gpu-operator", "--wait", "--timeout", "90s")
    helm("uninstall", "nfd", "--wait", "--timeout", "90s")


def test_prometheus_runs_and_its_kinds_are_served(helm: Tool, kubectl: Tool) -> None:
    parts = ("alertmanager", "grafana", "kubeEtcd", "kubeControllerManager", "kubeScheduler", "kubeProxy")
    install(
        helm, "kps", "kube-prometheus-stack", fullnameOverride="kps", **{part: {"enabled": False} for part in parts}
    )
    assert kubectl.json("get", "statefulset", "prometheus-kps-prometheus")["status"]["readyReplicas"] == 1
    assert "ServiceMonitor" in kubectl("api-resources", "--api-group=monitoring.coreos.com")
    helm("uninstall", "kps", "--wait", "--timeout", "90s")
    assert kubectl("get", "crd", "servicemonitors.monitoring.coreos.com", "--output", "name").strip()
