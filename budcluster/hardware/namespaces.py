"""Namespaces that the service makes for add-ons, and takes away again when nothing of others is in them."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import NotFound
from budcluster.kube.ownership import OWNED
from budcluster.kube.resources import (
    CLAIMS,
    DAEMON_SETS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)

_CONFIG_MAPS: Final = Resource("", "v1", "configmaps")
_CONTENTS: Final = (DEPLOYMENTS, DAEMON_SETS, STATEFUL_SETS, PODS, SERVICES, CLAIMS, SECRETS, _CONFIG_MAPS)
_EVERYWHERE: Final = frozenset({"kube-root-ca.crt", "openshift-service-ca.crt", "istio-ca-root-cert"})
"""ConfigMaps that controllers put into every namespace."""
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

    What the uninstalled release left there, by its name, does not count. Its pods may take a while to end. Raises
    KubeError.
    """
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
            content = await _content(client, name, release=release)
            if content is None:
                await client.delete(NAMESPACES, name)
        if asyncio.get_running_loop().time() >= deadline:
            return f"namespace {name}, which holds {content}" if content else f"namespace {name}, which is ending"
        await asyncio.sleep(_POLL_S)


def is_ours(namespace: Mapping[str, Any]) -> bool:
    """Whether the service made it."""
    labels = namespace["metadata"].get("labels") or {}
    return OWNED.items() <= labels.items()


async def _content(client: ClusterClient, name: str, *, release: str) -> str | None:
    for kind in _CONTENTS:
        async for page in client.list_pages(kind, namespace=name):
            for item in page["items"]:
                if not _is_residue(item, release=release):
                    return f"{kind.plural[:-1]} {item['metadata']['name']}"
    return None


def _is_residue(item: Mapping[str, Any], *, release: str) -> bool:
    name = str(item["metadata"]["name"])
    by_itself = name in _EVERYWHERE or item.get("type") == "kubernetes.io/service-account-token"
    return by_itself or name == release or name.startswith(f"{release}-")
