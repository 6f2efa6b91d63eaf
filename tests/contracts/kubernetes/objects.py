"""Small objects that every cluster can run."""

from typing import Any

Object = dict[str, Any]

PAUSE = "registry.k8s.io/pause:3.10"
BUSYBOX = "docker.io/library/busybox:1.37"
MISSING = "registry.invalid/nothing/here:missing"
"""An image that no cluster can pull."""


def container(image: str = PAUSE, **more: Any) -> Object:
    return {"name": "main", "image": image, **more}


def pod(name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    body = {"containers": [container()], "terminationGracePeriodSeconds": 0, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}}, "spec": body}


def template(name: str, **spec: Any) -> Object:
    made = pod(name, labels={"app": name}, **spec)
    return {"metadata": {"labels": {"app": name}}, "spec": made["spec"]}


def deployment(name: str, *, replicas: int = 1, **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, **spec),
        },
    }


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def service(name: str, *, port: int = 80) -> Object:
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def job(name: str, *, restart: str = "Never") -> Object:
    body = pod(name, restartPolicy=restart, containers=[container(BUSYBOX, command=["true"])])
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": body["spec"]}},
    }


def definition(plural: str, kind: str) -> Object:
    """A namespaced custom resource in the group contract.example.com."""
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.contract.example.com"},
        "spec": {
            "group": "contract.example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [version],
        },
    }


def custom(kind: str, name: str, **spec: Any) -> Object:
    return {"apiVersion": "contract.example.com/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
