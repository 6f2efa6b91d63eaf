"""Plain builders of the objects that tests create."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]


def container(image: str = "nginx:1.29", *, limits: dict[str, str] | None = None, **more: Any) -> Obj:
    resources = {"resources": {"limits": limits}} if limits else {}
    return {"name": "main", "image": image, **resources, **more}


def pod(name: str, *containers: Obj, labels: dict[str, str] | None = None, **spec: Any) -> Obj:
    meta = {"name": name, "namespace": "default", "labels": labels or {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def workload(
    kind: str,
    name: str,
    *containers: Obj,
    replicas: int = 1,
    namespace: str = "default",
    labels: dict[str, str] | None = None,
    pod_spec: Obj | None = None,
    **spec: Any,
) -> Obj:
    labels = labels or {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": list(containers) or [container()]}}
    template["spec"].update(pod_spec or {})
    body: Obj = {"selector": {"matchLabels": labels}, "template": template, **spec}
    if kind != "DaemonSet":
        body["replicas"] = replicas
    meta = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": body}


def job(name: str, command: str, *, restart: str = "Never", **spec: Any) -> Obj:
    template = {
        "spec": {
            "restartPolicy": restart,
            "containers": [container("busybox:1.37", command=["sh", "-c", command])],
        }
    }
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template, **spec}}
