"""Namespaces that the service makes, and takes away again when nothing of others is in them.

One whose content is not known is kept: an API that is broken or gone may have kept something there.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Conflict, Forbidden, Gone, NotFound, Rejected, ServerFailed, TooManyRequests
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
_UNTOLD: Final = (Conflict, Gone, NotFound, Rejected, ServerFailed, TooManyRequests)
"""The cluster answers, and does not tell now."""
_ENDING: Final = "which is ending"
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


async def remove_namespace(
    client: ClusterClient, name: str, *, release: str = "", patience_s: float = _PATIENCE_S
) -> str | None:
    """Remove a namespace that bears our label once it is empty; why it is left, or None when it is gone or not ours.

    What the uninstalled release left there, by its label, does not count, unless it is a volume claim: those hold
    data. Its pods may take a while to end; without a release nothing is waited for but the namespace's own end.
    Raises KubeError when the cluster does not answer or does not know us.
    """
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            left = await _try_to_remove(client, name, release=release)
        except Forbidden as error:
            return f"namespace {name}, whose content is not known ({error})"
        except _UNTOLD as error:
            left = f"whose content is not known ({error})"
        if left is None:
            return None
        is_waited_for = release or left == _ENDING
        if not is_waited_for or asyncio.get_running_loop().time() >= deadline:
            return f"namespace {name}, {left}"
        await asyncio.sleep(_POLL_S)


def is_ours(namespace: Mapping[str, Any]) -> bool:
    """Whether the service made it."""
    labels = namespace["metadata"].get("labels") or {}
    return OWNED.items() <= labels.items()


async def _try_to_remove(client: ClusterClient, name: str, *, release: str) -> str | None:
    try:
        namespace = await client.get(NAMESPACES, name)
    except NotFound:
        return None
    if not is_ours(namespace):
        return None
    if namespace["metadata"].get("deletionTimestamp"):
        return _ENDING
    # Looked for anew each time: kinds come and go with the add-ons.
    content = await _content(client, name, await _namespaced(client), release=release)
    if content is not None:
        return f"which holds {content}"
    try:
        await client.delete(NAMESPACES, name)
    except Forbidden:
        return "which is empty, but the credential may not delete namespaces"
    return _ENDING


async def _namespaced(client: ClusterClient) -> list[Resource]:
    """Every kind that can be listed in a namespace, each in one version. Raises KubeError."""
    places = [("", "/api", ["v1"])]
    for group in (await client.read("/apis")).get("groups") or ():
        if not f".{group['name']}".endswith(_MEASURES):
            preferred = (group.get("preferredVersion") or {}).get("version")
            versions = [served["version"] for served in group.get("versions") or ()]
            places.append((group["name"], f"/apis/{group['name']}", sorted(versions, key=lambda one: one != preferred)))
    found: dict[tuple[str, str], Resource] = {}
    for name, path, versions in places:
        for version in versions:
            for kind in (await client.read(f"{path}/{version}")).get("resources") or ():
                if kind.get("namespaced") and "list" in (kind.get("verbs") or ()) and "/" not in kind["name"]:
                    found.setdefault((name, kind["name"]), Resource(name, version, kind["name"]))
    return list(found.values())


async def _content(client: ClusterClient, name: str, kinds: Iterable[Resource], *, release: str) -> str | None:
    unseen: Forbidden | None = None
    for kind in kinds:
        if kind.plural in _FLEETING:
            continue
        try:
            async for page in client.list_pages(kind, namespace=name):
                for item in page.get("items") or ():
                    if not _is_residue(kind, item, release=release):
                        return f"{kind.plural} {item['metadata']['name']}"
        except Forbidden as error:
            unseen = unseen or error  # another kind may tell more
    if unseen is not None:
        raise unseen
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
