"""Puts add-ons into a cluster and takes them away: installs only what is missing, touches nothing of others."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from budcluster.hardware.addons import Addon, Surroundings
from budcluster.hardware.models import AddonOwner
from budcluster.kube.client import ClusterClient
from budcluster.kube.door import Door
from budcluster.kube.errors import NotFound
from budcluster.kube.helm import NotReadyInTime, Release, ReleaseNotFound
from budcluster.kube.ownership import OWNED
from budcluster.kube.resources import NAMESPACES, Resource

_WORKLOADS: Final = (Resource("apps", "v1", "daemonsets"), Resource("apps", "v1", "deployments"))


@dataclass(frozen=True, slots=True)
class Found:
    """An add-on as it is in a cluster."""

    owner: AddonOwner
    release: str | None
    namespace: str
    chart: str | None


async def find(addon: Addon, door: Door, *, releases: Sequence[Mapping[str, Any]] | None = None) -> Found | None:
    """The add-on as installed by anybody in any way; None when it is not there. Raises HelmError, KubeError."""
    listed = await door.helm.list_releases() if releases is None else releases
    for row in listed:
        name, namespace, chart = str(row["name"]), str(row["namespace"]), str(row["chart"])
        if re.fullmatch(rf"{re.escape(addon.chart)}-v?\d.*", chart):  # name-version; not `hami-webui-1.0`
            try:
                ours = (await door.helm.get(name, namespace)).is_ours
            except ReleaseNotFound:
                continue  # removed since it was listed
            return Found(AddonOwner.OURS if ours else AddonOwner.OTHER, name, namespace, chart)
    for mark in addon.marks:
        for kind in _WORKLOADS:
            async for page in door.client.list_pages(kind, label_selector=mark, limit=1):
                for workload in page["items"]:
                    return Found(AddonOwner.OTHER, None, workload["metadata"]["namespace"], None)
                break
    return None


async def ensure(addon: Addon, about: Surroundings, door: Door, *, mirror: str | None, timeout_s: float) -> Found:
    """The add-on, installed and brought to our values if it is ours or missing; left alone if it is somebody else's.

    Raises HelmError, KubeError.
    """
    found = await find(addon, door)
    if found is not None and found.owner is AddonOwner.OTHER:
        return found
    await ensure_namespace(door.client, addon.namespace, privileged=addon.privileged)
    release = Release(addon.release, addon.namespace, addon.chart_ref(mirror), addon.values(about))
    revision = await door.helm.ensure(release, timeout_s=timeout_s)
    return Found(AddonOwner.OURS, addon.release, addon.namespace, revision.chart)


async def remove(addon: Addon, door: Door, *, timeout_s: float) -> bool:
    """Uninstall the add-on if it is ours; whether there was anything to do. Raises HelmError, KubeError."""
    found = await find(addon, door)
    if found is None or found.owner is AddonOwner.OTHER or found.release is None:
        return False
    try:
        await door.helm.remove(found.release, found.namespace, timeout_s=timeout_s)
    except NotReadyInTime:
        # Its clean-up jobs need an image and a node; a cluster that has neither must still be rid of the release.
        await door.helm.remove(found.release, found.namespace, timeout_s=timeout_s, run_hooks=False)
    return True


async def ensure_namespace(client: ClusterClient, name: str, *, privileged: bool = False) -> None:
    """The namespace, labelled as ours if we made it; what exists keeps its labels. Raises KubeError."""
    try:
        await client.get(NAMESPACES, name)
    except NotFound:
        limits = {"pod-security.kubernetes.io/enforce": "privileged"} if privileged else {}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**OWNED, **limits}}}
        await client.apply(NAMESPACES, body)
