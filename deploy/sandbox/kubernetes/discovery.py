"""What clients ask before they ask for anything: versions, groups, resources, and OpenAPI paths."""

import hashlib
from typing import Any

from sandbox.kubernetes.resources import Kind, Resources, group_version
from sandbox.kubernetes.schemas import components, model_of, published

Obj = dict[str, Any]

_SUBRESOURCE_KINDS: dict[str, tuple[str, str, str]] = {
    "scale": ("autoscaling", "v1", "Scale"),
    "eviction": ("policy", "v1", "Eviction"),
    "binding": ("", "v1", "Binding"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "exec": ("", "v1", "PodExecOptions"),
    "attach": ("", "v1", "PodAttachOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
}
_SUBRESOURCE_VERBS = {
    "log": ["get"],
    "eviction": ["create"],
    "binding": ["create"],
    "token": ["create"],
    "exec": ["create", "get"],
    "attach": ["create", "get"],
    "portforward": ["create", "get"],
    "proxy": ["create", "delete", "get", "patch", "update"],
    "finalize": ["update"],
}


def version_info(version: str) -> Obj:
    """The answer of /version for a version such as `1.36.2`."""
    major, minor, _ = version.split(".", 2)
    commit = hashlib.sha1(version.encode(), usedforsecurity=False).hexdigest()
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": f"v{version}",
        "gitCommit": commit,
        "gitTreeState": "clean",
        "buildDate": "2026-08-12T10:08:13Z",
        "goVersion": "go1.25.5",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def core_versions(address: str) -> Obj:
    """The answer of /api."""
    server = {"clientCIDR": "0.0.0.0/0", "serverAddress": address}
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [server]}


def group_list(resources: Resources) -> Obj:
    """The answer of /apis."""
    groups = [_group(name, list(versions)) for name, versions in resources.served().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(resources: Resources, name: str) -> Obj | None:
    """One APIGroup, or None when the group is not served."""
    versions = resources.served().get(name) if name else None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, list(versions))} if versions else None


def resource_list(resources: Resources, name: str, version: str) -> Obj | None:
    """The APIResourceList of a group version, or None when it is not served."""
    kinds = resources.served().get(name, {}).get(version)
    if kinds is None:
        return None
    listed = [entry for kind in kinds for entry in _entries(kind)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(name, version),
        "resources": listed,
    }


def openapi_index(resources: Resources) -> Obj:
    """The paths of /openapi/v3. The hash changes with what is served, so that clients may cache."""
    paths: Obj = {}
    for name, versions in resources.served().items():
        for version, kinds in versions.items():
            path = f"apis/{name}/{version}" if name else f"api/{version}"
            digest = hashlib.sha256("".join(sorted(k.kind for k in kinds)).encode()).hexdigest()[:32].upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def openapi_document(resources: Resources, name: str, version: str) -> Obj | None:
    """OpenAPI v3 of a group version: the operations with their kinds and query parameters, and the kinds' schemas.

    None when it is not served.
    """
    kinds = resources.served().get(name, {}).get(version)
    if kinds is None:
        return None
    root = f"/apis/{name}/{version}" if name else f"/api/{version}"
    paths: Obj = {}
    schemas: Obj = {}
    for kind in kinds:
        gvk = {"group": name, "version": version, "kind": kind.kind}
        model, described = _schemas(kind, name, version)
        schemas |= described | {model: {**described[model], "x-kubernetes-group-version-kind": [gvk]}}
        place = f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
        paths[place] = {"post": _operation("post", gvk, model), "get": _operation("list", gvk, model)}
        paths[f"{place}/{{name}}"] = {
            verb: _operation(verb, gvk, model) for verb in ("get", "put", "patch", "delete") if "patch" in kind.verbs
        }
    info = {"title": "Kubernetes", "version": "unversioned"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def openapi_v2(version: str) -> Obj:
    """A document without paths: clients ask for it and go on without."""
    return {"swagger": "2.0", "info": {"title": "Kubernetes", "version": f"v{version}"}, "paths": {}, "definitions": {}}


def _schemas(kind: Kind, group: str, version: str) -> tuple[str, Obj]:
    """The name of a kind's schema, and the schema with those that it refers to."""
    if not kind.is_custom and (model := model_of(group, version, kind.kind)):
        return published(model), components([model])
    named = ".".join([*reversed((group or "core.k8s.io").split(".")), version, kind.kind])
    return named, {named: _custom_schema(kind, version)}


def _custom_schema(kind: Kind, version: str) -> Obj:
    schema: Obj = {"type": "object"}
    for served in ((kind.definition or {}).get("spec") or {}).get("versions") or ():
        if served.get("name") == version:
            schema = (served.get("schema") or {}).get("openAPIV3Schema") or schema
    return schema


def _operation(verb: str, gvk: Obj, model: str) -> Obj:
    action = {"put": "put", "patch": "patch", "post": "post", "delete": "delete", "get": "get"}.get(verb, "list")
    operation: Obj = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}},
            }
        },
    }
    if verb in {"post", "put", "patch"}:
        names = ("dryRun", "fieldManager", "fieldValidation", *(("force",) if verb == "patch" else ()))
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": {"type": "boolean" if name == "force" else "string"}}
            for name in names
        ]
    return operation


def _group(name: str, versions: list[str]) -> Obj:
    listed = [{"groupVersion": group_version(name, version), "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _entries(kind: Kind) -> list[Obj]:
    entry: Obj = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    return [entry, *(_subresource(kind, name) for name in kind.subresources)]


def _subresource(kind: Kind, name: str) -> Obj:
    entry: Obj = {
        "name": f"{kind.plural}/{name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": _SUBRESOURCE_VERBS.get(name, ["get", "patch", "update"]),
    }
    if name in _SUBRESOURCE_KINDS:
        entry["group"], entry["version"], entry["kind"] = _SUBRESOURCE_KINDS[name]
    return entry
