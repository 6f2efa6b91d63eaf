"""What the add-ons' Helm releases put into a cluster, reduced to what the simulation looks at."""

from __future__ import annotations

import json
from typing import Any

from sandbox.kubernetes.resources import Kind
from tests.sandbox.simulation.conftest import Cluster
from tests.sandbox.simulation.objects import container, workload

Obj = dict[str, Any]
EVERYWHERE = {"tolerations": [{"operator": "Exists"}]}


def define(cluster: Cluster, kind: str, group: str, plural: str, version: str, *, namespaced: bool) -> None:
    """What the API server does for a CustomResourceDefinition."""
    custom = Kind(kind, group, (version,), plural, namespaced=namespaced, is_custom=True, subresources=("status",))
    cluster.store.resources.register(custom)
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    scope = "Namespaced" if namespaced else "Cluster"
    spec = {"group": group, "names": {"kind": kind, "plural": plural}, "scope": scope, "versions": [served]}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec}
    cluster.create({**definition, "metadata": {"name": f"{plural}.{group}"}})


def namespace(cluster: Cluster, name: str) -> None:
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def install_nfd(cluster: Cluster, *, config: str = "", tolerate: bool = True) -> None:
    define(cluster, "NodeFeature", "nfd.k8s-sigs.io", "nodefeatures", "v1alpha1", namespaced=True)
    namespace(cluster, "nfd")
    image = "registry.k8s.io/nfd/node-feature-discovery:v0.19.0"
    meta = {"name": "nfd-worker-conf", "namespace": "nfd"}
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"nfd-worker.conf": config}})
    volumes = [{"name": "conf", "configMap": {"name": "nfd-worker-conf"}}]
    worker = {"volumes": volumes, **(EVERYWHERE if tolerate else {})}
    for role, kind, spec in (("worker", "DaemonSet", worker), ("master", "Deployment", {})):
        labels = {"app.kubernetes.io/name": "node-feature-discovery", "role": role}
        one = container(image, command=[f"nfd-{role}"])
        cluster.create(workload(kind, f"nfd-{role}", one, namespace="nfd", labels=labels, pod_spec=spec))
    cluster.advance(30)


def install_gpu_operator(cluster: Cluster, **spec: Any) -> None:
    define(cluster, "ClusterPolicy", "nvidia.com", "clusterpolicies", "v1", namespaced=False)
    namespace(cluster, "gpu-operator")
    policy = {
        "daemonsets": EVERYWHERE, "operator": {"runtimeClass": "nvidia"}, "mig": {"strategy": "single"},
        "driver": {"enabled": True, "repository": "nvcr.io/nvidia", "image": "driver", "version": "595.91.07"}, **spec,
    }  # fmt: skip
    meta = {"name": "cluster-policy"}
    cluster.create({"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": meta, "spec": policy})
    image = container("nvcr.io/nvidia/gpu-operator:v26.7.0", command=["gpu-operator"])
    operator = workload("Deployment", "gpu-operator", image, namespace="gpu-operator", labels={"app": "gpu-operator"})
    cluster.create(operator)
    cluster.advance(60)


def install_hami(cluster: Cluster, *, runtime_class: str | None = None) -> None:
    component = "app.kubernetes.io/component"
    config = "nvidia:\n  deviceSplitCount: 10\n  deviceMemoryScaling: 1\n"
    meta = {"name": "hami-scheduler-device", "namespace": "kube-system"}
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"device-config.yaml": config}})
    plugin: Obj = {"nodeSelector": {"gpu": "on"}, **EVERYWHERE}
    plugin["volumes"] = [{"name": "device-config", "configMap": {"name": "hami-scheduler-device"}}]
    if runtime_class:
        plugin["runtimeClassName"] = runtime_class
    for name, kind, spec in (("device-plugin", "DaemonSet", plugin), ("scheduler", "Deployment", {})):
        one = {**container("projecthami/hami:v2.10.0"), "name": name}
        labels = {component: f"hami-{name}"}
        cluster.create(workload(kind, f"hami-{name}", one, namespace="kube-system", labels=labels, pod_spec=spec))
    hook = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    client = {"service": {"name": "hami-scheduler", "namespace": "kube-system"}}
    webhook = {
        "name": "vgpu.hami.io", "clientConfig": client, "admissionReviewVersions": ["v1beta1"], "sideEffects": "None"
    }  # fmt: skip
    cluster.create({**hook, "metadata": {"name": "hami-webhook"}, "webhooks": [webhook]})
    cluster.advance(30)


def label(cluster: Cluster, node: str, **labels: str) -> None:
    cluster.store.update("Node", None, node, lambda one: one["metadata"]["labels"].update(labels))


def read_register(cluster: Cluster, node: str) -> list[Obj]:
    rows: list[Obj] = json.loads(cluster.node(node)["metadata"]["annotations"]["hami.io/node-nvidia-register"])
    return rows
