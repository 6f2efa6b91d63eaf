"""What an existing cluster is and has, looked at before anything is changed. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Forbidden, NotFound
from budcluster.kube.grants import in_words
from budcluster.kube.resources import NAMESPACES, NODES, Resource
from budcluster.kube.versions import Support, UnreadableVersion, Version, judge_kubelet, judge_server

STORAGE_CLASSES: Final = Resource("storage.k8s.io", "v1", "storageclasses")
CLAIMS: Final = Resource("budcluster.io", "v1", "claims")
_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"


class VersionRefused(Exception):
    """The cluster's Kubernetes version is too old, or cannot be understood."""

    next_step = "Upgrade the cluster, one minor release at a time, then onboard it again."


class ManagedElsewhere(Exception):
    """A budcluster says that it manages the cluster under another id than ours."""

    def __init__(self, claimed_as: str) -> None:
        super().__init__(f"the cluster is managed by a budcluster as {claimed_as} and not by us any more")
        self.claimed_as = claimed_as


@dataclass(frozen=True, slots=True)
class Identity:
    """Which cluster answers."""

    version: Version
    git_version: str
    system_uid: str
    """uid of the namespace kube-system: the same for everybody who speaks to this cluster."""
    warning: str | None


async def identify(client: ClusterClient) -> Identity:
    """Who answers, in which version. Raises VersionRefused, KubeError."""
    answer = await client.read("/version")
    try:
        version = Version.of_server(answer)
    except UnreadableVersion as error:
        raise VersionRefused(str(error)) from error
    verdict = judge_server(version)
    if verdict.support is Support.REFUSED:
        raise VersionRefused(verdict.sentence)
    return Identity(
        version=version,
        git_version=str(answer.get("gitVersion", version))[:64],
        system_uid=await system_uid(client),
        warning=verdict.sentence or None,
    )


async def system_uid(client: ClusterClient) -> str:
    """Which cluster answers: the uid of its namespace kube-system. Raises KubeError."""
    system = await client.get(NAMESPACES, "kube-system")
    return str(system["metadata"]["uid"])[:64]


async def require_unclaimed(client: ClusterClient, cluster_id: UUID) -> None:
    """Nobody manages the cluster, or we do, under this id. Raises ManagedElsewhere, KubeError."""
    try:
        claim = await client.get(CLAIMS, "this-cluster")
    except (NotFound, Forbidden):
        return
    claimed_as = str((claim.get("spec") or {}).get("cluster", ""))[:64]
    if claimed_as not in {"", str(cluster_id)}:
        raise ManagedElsewhere(claimed_as)


async def report(
    client: ClusterClient, identity: Identity, *, manage_addons: bool, models_namespace: str
) -> dict[str, Any]:
    """What a person should know before and after: versions, storage, machines, and what our account may do."""
    nodes = [node async for page in client.list_pages(NODES) for node in page["items"]]
    classes = [item async for page in client.list_pages(STORAGE_CLASSES) for item in page["items"]]
    warnings = [identity.warning] if identity.warning else []
    warnings += _node_warnings(nodes, identity.version)
    default = _default_class(classes)
    if default is None:
        warnings.append(
            "No StorageClass is the default: model caches fall back to the nodes' own disks unless one is named."
        )
    return {
        "kubernetes": identity.git_version,
        "nodes": len(nodes),
        "architectures": sorted({_info(node, "architecture") for node in nodes}),
        "container_runtimes": sorted({_info(node, "containerRuntimeVersion") for node in nodes}),
        "default_storage_class": default,
        "storage_classes": [str(item["metadata"]["name"]) for item in classes][:50],
        "access": {
            "role": "cluster-admin" if manage_addons else "narrow",
            "why": "installing operators needs every permission"
            if manage_addons
            else "add-ons are not managed, so the account serves models and looks at the machines",
            "may": ["everything"] if manage_addons else in_words(models_namespace),
        },
        "warnings": warnings[:50],
    }


def _node_warnings(nodes: Sequence[Mapping[str, Any]], server: Version) -> list[str]:
    sentences: dict[str, None] = {}
    for node in nodes:
        try:
            verdict = judge_kubelet(Version.parse(_info(node, "kubeletVersion")), server=server)
        except UnreadableVersion:
            continue
        if verdict.support is not Support.SUPPORTED:
            sentences[verdict.sentence] = None
    return list(sentences)


def _default_class(classes: Sequence[Mapping[str, Any]]) -> str | None:
    for item in classes:
        if (item["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true":
            return str(item["metadata"]["name"])
    return None


def _info(node: Mapping[str, Any], key: str) -> str:
    return str(((node.get("status") or {}).get("nodeInfo") or {}).get(key, "unknown"))[:100]
