"""What a container gets from the API: environment, mounted objects, and what kubelet says when one is missing."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from sandbox.kubernetes.store import Store

Obj = dict[str, Any]


class ConfigProblem(Exception):
    """A referenced Secret or ConfigMap (or its key) does not exist; the text is kubelet's."""


def environment(store: Store, pod: Obj, container: Obj) -> dict[str, str]:
    """The variables of a container, service links included. Raises ConfigProblem."""
    namespace = pod["metadata"]["namespace"]
    values: dict[str, str] = {}
    if pod["spec"].get("enableServiceLinks", True):
        values.update(_service_links(store, namespace))
    for source in container.get("envFrom") or []:
        reference = source.get("secretRef") or source.get("configMapRef") or {}
        kind = "Secret" if "secretRef" in source else "ConfigMap"
        for key, text in _data(store, kind, namespace, reference).items():
            values[source.get("prefix", "") + key] = text
    for variable in container.get("env") or []:
        value: str | None = variable.get("value")
        if "valueFrom" in variable:
            value = _value_from(store, pod, container, variable["valueFrom"])
        if value is not None:
            values[variable["name"]] = value
    return values


def mount_problem(store: Store, pod: Obj) -> str | None:
    """Why a volume of a pod cannot be set up, None when all can."""
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or []:
        for kind, name, optional in _mounted(volume):
            if not optional and store.find(kind, namespace, name) is None:
                return f'MountVolume.SetUp failed for volume "{volume["name"]}" : {kind.lower()} "{name}" not found'
    return None


def _mounted(volume: Obj) -> Iterator[tuple[str, str, bool]]:
    parts = [volume, *(volume.get("projected") or {}).get("sources", [])]
    for part in parts:
        if "secret" in part:
            reference = part["secret"]
            yield "Secret", reference.get("secretName") or reference.get("name"), bool(reference.get("optional"))
        if "configMap" in part and part["configMap"].get("name") != "kube-root-ca.crt":
            yield "ConfigMap", part["configMap"]["name"], bool(part["configMap"].get("optional"))


def _data(store: Store, kind: str, namespace: str, reference: Obj) -> dict[str, str]:
    found = store.find(kind, namespace, reference.get("name", ""))
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigProblem(f'{kind.lower()} "{reference.get("name", "")}" not found')
    data: dict[str, str] = found.get("data") or {}
    if kind == "ConfigMap":
        return data
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}


def _value_from(store: Store, pod: Obj, container: Obj, source: Obj) -> str | None:
    meta = pod["metadata"]
    for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
        if field in source:
            reference = source[field]
            data = _data(store, kind, meta["namespace"], reference)
            if reference["key"] not in data and not reference.get("optional"):
                word = "Secret" if kind == "Secret" else "ConfigMap"
                raise ConfigProblem(
                    f"couldn't find key {reference['key']} in {word} {meta['namespace']}/{reference['name']}"
                )
            return data.get(reference["key"])
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        resources = container.get("resources") or {}
        group, _, name = source["resourceFieldRef"]["resource"].partition(".")
        return str((resources.get(group) or {}).get(name, "0"))
    return None


def _field(pod: Obj, path: str) -> str:
    meta, status = pod["metadata"], pod.get("status") or {}
    if path.startswith(("metadata.labels['", "metadata.annotations['")):
        group, _, key = path.removeprefix("metadata.").partition("['")
        return str((meta.get(group) or {}).get(key.removesuffix("']"), ""))
    fields = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": status.get("podIP", ""),
        "status.hostIP": status.get("hostIP", ""),
    }
    return str(fields.get(path, ""))


def _service_links(store: Store, namespace: str) -> dict[str, str]:
    links: dict[str, str] = {}
    for service in store.list("Service", namespace):
        address, ports = service["spec"].get("clusterIP"), service["spec"].get("ports") or []
        if not address or address == "None" or not ports:
            continue
        name = service["metadata"]["name"].upper().replace("-", "_")
        links[f"{name}_SERVICE_HOST"] = address
        links[f"{name}_SERVICE_PORT"] = str(ports[0]["port"])
        links[f"{name}_PORT"] = f"tcp://{address}:{ports[0]['port']}"
    return links
