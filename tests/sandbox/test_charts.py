"""The stand-in charts, rendered by real Helm: names and labels of the releases, and values refused as in reality."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.chart_repository import CHARTS, build

pytestmark = pytest.mark.slow

Document = dict[str, Any]


def helm(
    variables: dict[str, str], *arguments: str, values: Document | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["helm", *arguments, "--values", "-"],
        input=yaml.safe_dump(values or {}),
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def render(
    variables: dict[str, str], chart: str, release: str, values: Document | None = None
) -> dict[tuple[str, str], Document]:
    """What the release would hold, by kind and name."""
    arguments = ["template", release, str(CHARTS / chart), "--namespace", "addons", "--include-crds"]
    done = helm(variables, *arguments, values=values)
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


NFD = {
    "worker": {
        "tolerations": [{"operator": "Exists"}],
        "config": {
            "core": {"sleepInterval": "60s"},
            "sources": {"pci": {"deviceClassWhitelist": ["02", "03", "0b40", "12"]}},
        },
    }
}
GPU_OPERATOR = {
    "nfd": {"enabled": False},
    "driver": {"enabled": False},
    "toolkit": {"enabled": False},
    "devicePlugin": {"enabled": False},
    "daemonsets": {"tolerations": [{"operator": "Exists"}]},
    "dcgmExporter": {"serviceMonitor": {"additionalLabels": {"release": "kps"}}},
}
HAMI = {
    "scheduler": {
        "kubeScheduler": {"image": {"registry": "registry.k8s.io", "repository": "kube-scheduler", "tag": "v1.36.2"}},
        "service": {"type": "ClusterIP"},
        "admissionWebhook": {"manageNamespaceSelector": False},
    },
    "devicePlugin": {
        "runtimeClassName": "nvidia",
        "service": {"type": "ClusterIP"},
        "tolerations": [{"operator": "Exists"}],
    },
}
PROMETHEUS = {
    "fullnameOverride": "kps",
    "alertmanager": {"enabled": False},
    "grafana": {"enabled": False},
    **{part: {"enabled": False} for part in ("kubeEtcd", "kubeControllerManager", "kubeScheduler", "kubeProxy")},
    "prometheus": {
        "prometheusSpec": {
            "retention": "7d",
            "serviceMonitorSelectorNilUsesHelmValues": False,
            "storageSpec": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "20Gi"}}}}},
        }
    },
}


def test_nfd_has_the_names_and_roles_of_the_release(tool_home: dict[str, str]) -> None:
    objects = render(tool_home, "node-feature-discovery", "nfd", NFD)
    worker = objects["DaemonSet", "nfd-node-feature-discovery-worker"]
    assert worker["spec"]["template"]["metadata"]["labels"]["role"] == "worker"
    assert worker["spec"]["template"]["spec"]["tolerations"] == [{"operator": "Exists"}]
    for role in ("master", "gc"):
        labels = objects["Deployment", f"nfd-node-feature-discovery-{role}"]["spec"]["template"]["metadata"]["labels"]
        assert labels["role"] == role
    prune = objects["Job", "nfd-node-feature-discovery-prune"]
    assert prune["metadata"]["annotations"]["helm.sh/hook"] == "post-delete"
    configuration = objects["ConfigMap", "nfd-node-feature-discovery-worker-conf"]["data"]["nfd-worker.conf"]
    assert yaml.safe_load(configuration)["sources"]["pci"]["deviceClassWhitelist"] == ["02", "03", "0b40", "12"]
    assert ("CustomResourceDefinition", "nodefeatures.nfd.k8s-sigs.io") in objects


def test_the_gpu_operator_puts_the_values_into_its_cluster_policy(tool_home: dict[str, str]) -> None:
    objects = render(tool_home, "gpu-operator", "gpu-operator", GPU_OPERATOR)
    policy = objects["ClusterPolicy", "cluster-policy"]["spec"]
    assert [policy[part]["enabled"] for part in ("driver", "toolkit", "devicePlugin", "gfd")] == [
        False,
        False,
        False,
        True,
    ]
    assert policy["operator"]["runtimeClass"] == "nvidia"
    assert policy["dcgmExporter"]["serviceMonitor"]["additionalLabels"] == {"release": "kps"}
    assert objects["Deployment", "gpu-operator"]["spec"]["selector"]["matchLabels"]["app"] == "gpu-operator"
    assert objects["Job", "gpu-operator-upgrade-crd"]["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"


def test_time_slicing_of_the_gpu_operator_is_a_config_map_and_a_reference(tool_home: dict[str, str]) -> None:
    configuration = {
        "create": True,
        "name": "time-slicing-config-all",
        "default": "any",
        "data": {"any": "version: v1"},
    }
    objects = render(
        tool_home,
        "gpu-operator",
        "gpu-operator",
        {"nfd": {"enabled": False}, "devicePlugin": {"config": configuration}},
    )
    assert objects["ConfigMap", "time-slicing-config-all"]["data"] == {"any": "version: v1"}
    policy = objects["ClusterPolicy", "cluster-policy"]["spec"]
    assert policy["devicePlugin"]["config"] == {"name": "time-slicing-config-all", "default": "any"}


def test_hami_has_the_names_and_hooks_of_the_release(tool_home: dict[str, str]) -> None:
    objects = render(tool_home, "hami", "hami", HAMI)
    plugin = objects["DaemonSet", "hami-device-plugin"]["spec"]["template"]["spec"]
    assert plugin["nodeSelector"] == {"gpu": "on"}
    assert plugin["runtimeClassName"] == "nvidia"
    images = [
        part["image"] for part in objects["Deployment", "hami-scheduler"]["spec"]["template"]["spec"]["containers"]
    ]
    assert images == ["registry.k8s.io/kube-scheduler:v1.36.2", "docker.io/projecthami/hami:v2.10.0"]
    assert objects["MutatingWebhookConfiguration", "hami-webhook"]["webhooks"][0]["name"] == "vgpu.hami.io"
    assert "namespaceSelector" not in objects["MutatingWebhookConfiguration", "hami-webhook"]["webhooks"][0]
    assert ("ConfigMap", "hami-scheduler-device") in objects
    assert ("ConfigMap", "hami-device-plugin") in objects
    hooks = [
        objects["Job", f"hami-admission-{verb}"]["metadata"]["annotations"]["helm.sh/hook"]
        for verb in ("create", "patch")
    ]
    assert hooks == ["pre-install,pre-upgrade", "post-install,post-upgrade"]
    services = [document for (kind, _), document in objects.items() if kind == "Service"]
    assert [service["spec"]["type"] for service in services] == ["ClusterIP", "ClusterIP"]
    assert not [port for service in services for port in service["spec"]["ports"] if "nodePort" in port]


def test_prometheus_has_the_names_and_storage_of_the_release(tool_home: dict[str, str]) -> None:
    objects = render(tool_home, "kube-prometheus-stack", "kps", PROMETHEUS)
    server = objects["StatefulSet", "prometheus-kps-prometheus"]["spec"]
    assert server["serviceName"] == "prometheus-operated"
    assert server["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert objects["Service", "kps-prometheus"]["spec"]["ports"][0]["port"] == 9090
    assert objects["Prometheus", "kps-prometheus"]["spec"]["serviceMonitorSelector"] == {}
    assert objects["Prometheus", "kps-prometheus"]["spec"]["podMonitorSelector"] == {"matchLabels": {"release": "kps"}}
    assert ("DaemonSet", "kps-prometheus-node-exporter") in objects
    assert ("Deployment", "kps-kube-state-metrics") in objects
    assert ("CustomResourceDefinition", "servicemonitors.monitoring.coreos.com") in objects
    assert not [name for kind, name in objects if "alertmanager" in name and kind != "CustomResourceDefinition"]
    assert not [name for _, name in objects if "grafana" in name or "etcd" in name]


@pytest.mark.parametrize(
    ("chart", "values", "complaint"),
    [
        ("node-feature-discovery", {"worker": {"tolerations": "Exists"}}, "/worker/tolerations"),
        ("node-feature-discovery", {"worker": {"toleration": []}}, "'toleration' not allowed"),
        (
            "node-feature-discovery",
            {"worker": {"config": {"sources": {"pci": {"deviceClassWhitelist": ["2"]}}}}},
            "pci",
        ),
        ("gpu-operator", {"nfd": {"enable": False}}, "'enable' not allowed"),
        ("gpu-operator", {"devicePlugin": {"enabled": "no"}}, "/devicePlugin/enabled"),
        ("gpu-operator", {}, "set nfd.enabled=false"),
        ("hami", {"scheduler": {"kubeScheduler": {"imageTag": "v1.30.0"}}}, "'imageTag' not allowed"),
        ("hami", {"devicePlugin": {"disablecorelimit": False}}, "/devicePlugin/disablecorelimit"),
        ("hami", {"devicePlugin": {"service": {"type": "clusterIP"}}}, "/devicePlugin/service/type"),
        ("kube-prometheus-stack", {"prometheus": {"retention": "7d"}}, "'retention' not allowed"),
        ("kube-prometheus-stack", {"prometheus": {"prometheusSpec": {"retention": "seven days"}}}, "retention"),
    ],
)
def test_wrong_values_are_refused(tool_home: dict[str, str], chart: str, values: Document, complaint: str) -> None:
    done = helm(tool_home, "template", "wrong", str(CHARTS / chart), values=values)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_every_chart_passes_lint(tool_home: dict[str, str]) -> None:
    for chart in CHARTS.glob("*/Chart.yaml"):
        values = GPU_OPERATOR if chart.parent.name == "gpu-operator" else {}
        done = helm(tool_home, "lint", str(chart.parent), values=values)
        assert done.returncode == 0, done.stdout


def test_the_charts_become_a_repository(
    tmp_path: Path, tool_home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", tool_home["PATH"])
    archives = build(tmp_path / "repository")
    assert [path.name for path in archives] == [
        "gpu-operator-v26.7.0.tgz",
        "hami-2.10.0.tgz",
        "kube-prometheus-stack-88.5.3.tgz",
        "node-feature-discovery-0.19.0.tgz",
    ]
    index = yaml.safe_load((tmp_path / "repository" / "index.yaml").read_text())
    assert {name: entries[0]["version"] for name, entries in index["entries"].items()} == {
        "gpu-operator": "v26.7.0",
        "hami": "2.10.0",
        "kube-prometheus-stack": "88.5.3",
        "node-feature-discovery": "0.19.0",
    }
