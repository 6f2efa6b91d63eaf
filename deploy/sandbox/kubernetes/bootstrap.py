"""What every cluster starts with: system namespaces, default accounts, the CA's ConfigMap, and the built-in roles."""

from collections.abc import Iterator
from typing import Any

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.resources import Resources
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_RBAC = "rbac.authorization.k8s.io/v1"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
# What view may not see and edit may not write: they would lend the rights of others.
_NOT_VIEWED = frozenset({"secrets", "roles", "rolebindings"})


def furnish(store: Store, *, ca_pem: str) -> None:
    """Create what a new cluster has, and see to it that every later namespace gets its own."""

    def on_namespace(event: Event) -> None:
        name = event.obj["metadata"]["name"]
        if event.type == "DELETED" or "deletionTimestamp" in event.obj["metadata"]:
            return
        for obj in _namespace_contents(name, ca_pem):
            if store.find(obj["kind"], name, obj["metadata"]["name"]) is None:
                store.create(obj)

    def on_content(event: Event) -> None:
        meta = event.obj["metadata"]
        home = store.find("Namespace", None, meta["namespace"])
        is_ours = meta["name"] in {"default", "kube-root-ca.crt"}
        if event.type == "DELETED" and is_ours and home and "deletionTimestamp" not in home["metadata"]:
            on_namespace(Event("MODIFIED", home, home, store.resources.get("Namespace")))

    store.subscribe(on_namespace, kinds=["Namespace"])
    store.subscribe(on_content, kinds=["ServiceAccount", "ConfigMap"])
    for name in SYSTEM_NAMESPACES:
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for role in _roles(store.resources):
        store.create(role)
    for binding in _bindings():
        store.create(binding)
    store.create(_kubernetes_service())


def _namespace_contents(name: str, ca_pem: str) -> Iterator[Obj]:
    meta = {"namespace": name}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**meta, "name": "default"}}
    described = {"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver."}
    root = {**meta, "name": "kube-root-ca.crt", "annotations": described}
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": root, "data": {"ca.crt": ca_pem}}


def _roles(resources: Resources) -> Iterator[Obj]:
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    yield _role("cluster-admin", [everything, {"nonResourceURLs": ["*"], "verbs": ["*"]}])
    yield from _roles_of_people(resources)
    yield from _roles_of_everybody()


def _roles_of_people(resources: Resources) -> Iterator[Obj]:
    """`view`, `edit` and `admin` in a namespace, and a viewer of the whole cluster."""
    by_group: dict[str, list[str]] = {}
    for kind in resources:
        if kind.namespaced and "patch" in kind.verbs:
            names = [kind.plural, *(f"{kind.plural}/{sub}" for sub in kind.subresources)]
            by_group.setdefault(kind.group, []).extend(names)
    viewed = [
        _rule(group, [n for n in names if n not in _NOT_VIEWED and _is_readable(n)], _READ)
        for group, names in by_group.items()
    ]
    viewed.append(_rule("", ["namespaces"], _READ))
    written = [
        _rule(group, [n for n in names if n not in {"roles", "rolebindings"}], _WRITE)
        for group, names in by_group.items()
        if group != "rbac.authorization.k8s.io"
    ]
    secrets = _rule("", ["secrets", "pods/exec", "pods/attach", "pods/portforward"], _READ)
    edited = [*viewed, *written, secrets]
    roles = _rule("rbac.authorization.k8s.io", ["roles", "rolebindings"], [*_READ, *_WRITE])
    reviews = _rule("authorization.k8s.io", ["localsubjectaccessreviews"], ["create"])
    yield _aggregated("view", viewed)
    yield _aggregated("edit", edited)
    yield _aggregated("admin", [*edited, roles, reviews])
    cluster_wide = [k for k in resources if not k.namespaced and "patch" in k.verbs]
    seen = [_rule(kind.group, [kind.plural], _READ) for kind in cluster_wide]
    yield _role("sandbox:viewer", [*viewed, *seen, _rule("metrics.k8s.io", ["nodes", "pods"], _READ)])


def _roles_of_everybody() -> Iterator[Obj]:
    """What everyone who is known may ask: paths that describe the server, and what oneself may do."""
    paths = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", "/version", "/version/"]
    health = ["/healthz", "/livez", "/readyz"]
    yield _role("system:discovery", [{"nonResourceURLs": [*health, *paths], "verbs": ["get"]}])
    info = [*health, "/version", "/version/"]
    yield _role("system:public-info-viewer", [{"nonResourceURLs": info, "verbs": ["get"]}])
    about_self = _rule("authentication.k8s.io", ["selfsubjectreviews"], ["create"])
    asks = _rule("authorization.k8s.io", ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["create"])
    yield _role("system:basic-user", [asks, about_self])


def _rule(group: str, resources: list[str], verbs: list[str]) -> Obj:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _is_readable(name: str) -> bool:
    return name.rpartition("/")[2] not in {"exec", "attach", "portforward", "eviction", "binding", "token", "proxy"}


def _role(name: str, rules: list[Obj]) -> Obj:
    metadata = {"name": name, "labels": dict(_LABELS)}
    return {"apiVersion": _RBAC, "kind": "ClusterRole", "metadata": metadata, "rules": rules}


def _aggregated(name: str, rules: list[Obj]) -> Obj:
    """A role that grows by every ClusterRole labelled to aggregate to it."""
    label = f"rbac.authorization.k8s.io/aggregate-to-{name}"
    selector = {"matchLabels": {label: "true"}}
    return {**_role(name, rules), "aggregationRule": {"clusterRoleSelectors": [selector]}}


def _bindings() -> Iterator[Obj]:
    for role, groups in (
        ("cluster-admin", ["system:masters"]),
        ("system:discovery", ["system:authenticated"]),
        ("system:basic-user", ["system:authenticated"]),
        ("system:public-info-viewer", ["system:authenticated", "system:unauthenticated"]),
        ("sandbox:viewer", ["sandbox:viewers"]),
    ):
        yield {
            "apiVersion": _RBAC,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role, "labels": dict(_LABELS)},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "Group", "name": group} for group in groups],
        }


def _kubernetes_service() -> Obj:
    port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}
    labels = {"component": "apiserver", "provider": "kubernetes"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [port]},
    }
