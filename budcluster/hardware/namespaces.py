"""Namespaces that the service makes for add-ons, and takes away again when nothing of others is in them."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Forbidden, NotFound, Rejected, ServerFailed
from budcluster.kube.ownership import OWNED
from budcluster.kube.resources import CLAIMS, NAMESPACES, Resource

_EVERYWHERE: Final = {
    "configmaps": frozenset({"kube-root-ca.crt", "openshift-service-ca.crt", "istio-ca-root-cert"}),
    "serviceaccounts": frozenset({"default"}),
}
"""What controllers put into every namespace."""
_FLEETING: Final = frozenset({"events", "leases", "nodefeatures"})
"""Kinds that programs write about themselves; whoever needs them has a pod there, too."""
_ADMISSION: Final = "kps-admission"
"""The certificate that a Job of the monitoring chart makes, without labels."""
_MEASURES: Final = ".metrics.k8s.io"
"""Groups whose objects are measurements of others' objects: the pods of `metrics.k8s.io` are no pods."""
_UNTOLD: Final = (Forbidden, NotFound, Rejected, ServerFailed)
"""An API of an add-on that is broken or gone answers so; whatever it keeps may be there."""
_PATIENCE_S: Final = 60.0
_POLL_S: Final = 1.0


async def ensure_namespace(client: ClusterClient, name: str, *, privileged: bool = False) -> None:
    """The namespace, labelled as ours if we made it; what exists keeps its labels. Raises KubeError."""
    try:
        await client.get(NAMESPACES, name)
    except NotFound:
        limits = {"pod-security.kubernetes.io/enforce": "privileged"} if privileged else {}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**OWNED, **limits}}}
        await client.apply(NAMESPACES, body)


async def remove_namespace(client: ClusterClient, name: str, *, release: str) -> str | None:
    """Remove a namespace that bears our label once it is empty; why it is left, or None when it is gone or not ours.

    What the uninstalled release left there, by its label, does not count, unless it is a volume claim: those hold
    data. Its pods may take a while to end. Raises KubeError.
    """
    kinds: list[Resource] = []
    deadline = asyncio.get_running_loop().time() + _PATIENCE_S
    while True:
        try:
            namespace = await client.get(NAMESPACES, name)
        except NotFound:
            return None
        if not is_ours(namespace):
            return None
        content = None
        if not namespace["metadata"].get("deletionTimestamp"):
            try:
                kinds = kinds or await _namespaced(client)
                content = await _content(client, name, kinds, release=release)
            except _UNTOLD as error:
                content = f"what the cluster does not tell ({error})"
            if content is None:
                await client.delete(NAMESPACES, name)
        if asyncio.get_running_loop().time() >= deadline:
            return f"namespace {name}, which holds {content}" if content else f"namespace {name}, which is ending"
        await asyncio.sleep(_POLL_S)


def is_ours(namespace: Mapping[str, Any]) -> bool:
    """Whether the service made it."""
    labels = namespace["metadata"].get("labels") or {}
    return OWNED.items() <= labels.items()


async def _namespaced(client: ClusterClient) -> list[Resource]:
    """Every kind that can be listed in a namespace; one that cannot be looked for may be there. Raises KubeError."""
    groups = (await client.read("/apis")).get("groups") or ()
    places = [("", "v1", "/api/v1")]
    for group in groups:
        if f".{group['name']}".endswith(_MEASURES):
            continue
        version = group["preferredVersion"]["version"]
        places.append((group["name"], version, f"/apis/{group['name']}/{version}"))
    return [
        Resource(group, version, kind["name"])
        for group, version, path in places
        for kind in (await client.read(path)).get("resources") or ()
        if kind.get("namespaced") and "list" in kind.get("verbs", ()) and "/" not in kind["name"]
    ]


async def _content(client: ClusterClient, name: str, kinds: Iterable[Resource], *, release: str) -> str | None:
    for kind in kinds:
        if kind.plural in _FLEETING:
            continue
        async for page in client.list_pages(kind, namespace=name):
            for item in page["items"]:
                if not _is_residue(kind, item, release=release):
                    return f"{kind.plural} {item['metadata']['name']}"
    return None


def _is_residue(kind: Resource, item: Mapping[str, Any], *, release: str) -> bool:
    if kind == CLAIMS:
        return False
    metadata = item["metadata"]
    name, labels = str(metadata["name"]), metadata.get("labels") or {}
    if labels.get("app.kubernetes.io/instance") == release or name in _EVERYWHERE.get(kind.plural, ()):
        return True
    if kind.plural != "secrets":
        return False
    of_account = (metadata.get("annotations") or {}).get("kubernetes.io/service-account.name")
    is_token = item.get("type") == "kubernetes.io/service-account-token" and of_account == "default"
    is_record = item.get("type") == "helm.sh/release.v1" and labels.get("name") == release
    return is_token or is_record or name == _ADMISSION
