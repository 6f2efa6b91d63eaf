"""Puts add-ons into a cluster and takes them away: installs only what is missing, touches nothing of others."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from budcluster.hardware import rollout
from budcluster.hardware.addons import Addon, AddonFailed, Surroundings
from budcluster.hardware.models import AddonOwner
from budcluster.hardware.namespaces import ensure_namespace
from budcluster.kube.door import Door
from budcluster.kube.helm import Release
from budcluster.kube.helm_errors import HelmError, NotReadyInTime, ReleaseNotFound
from budcluster.kube.resources import DAEMON_SETS, DEPLOYMENTS, STATEFUL_SETS

_WORKLOADS: Final = (DAEMON_SETS, DEPLOYMENTS, STATEFUL_SETS)


class NoNode(AddonFailed):
    """No node is ready to run the add-on."""


@dataclass(frozen=True, slots=True)
class Found:
    """An add-on as it is in a cluster."""

    owner: AddonOwner
    release: str | None
    namespace: str
    chart: str | None

    def said(self, addon: Addon) -> str:
        """A sentence for whoever asked for it."""
        if self.owner is AddonOwner.OTHER:
            return f"{addon.title} is there already, installed by somebody else; it is used as it is."
        return f"{addon.title} {addon.version} is installed."


async def find(addon: Addon, door: Door, *, releases: Sequence[Mapping[str, Any]] | None = None) -> Found | None:
    """The add-on as installed by anybody in any way, ours before others'; None when it is not there.

    Raises HelmError, KubeError.
    """
    listed = await door.helm.list_releases() if releases is None else releases
    theirs = None
    for row in listed:
        name, namespace, chart = str(row["name"]), str(row["namespace"]), str(row["chart"])
        if is_chart(addon.chart, chart):
            try:
                ours = (await door.helm.get(name, namespace)).is_ours
            except ReleaseNotFound:
                continue  # removed since it was listed
            if ours:
                return Found(AddonOwner.OURS, name, namespace, chart)
            theirs = theirs or Found(AddonOwner.OTHER, name, namespace, chart)
    if theirs is not None:
        return theirs
    for mark in addon.marks:
        for kind in _WORKLOADS:
            async for page in door.client.list_pages(kind, label_selector=mark, limit=1):
                for workload in page["items"]:
                    return Found(AddonOwner.OTHER, None, workload["metadata"]["namespace"], None)
                break
    return None


def is_chart(name: str, chart: str) -> bool:
    """Whether Helm's `name-version` is of this chart: `hami-2.10.0` is HAMi's, `hami-webui-1.0` is not."""
    return re.fullmatch(rf"{re.escape(name)}-v?\d.*", chart) is not None


async def ensure(addon: Addon, about: Surroundings, door: Door, *, mirror: str | None, timeout_s: float) -> Found:
    """The add-on, installed and brought to our values if it is ours or missing; left alone if it is somebody else's.

    Returns once its controllers run; what runs on each node is waited for by whoever needs it there. In a cluster
    without ready nodes there is nothing to wait for. Raises AddonFailed, HelmError, KubeError.
    """
    found = await find(addon, door)
    if found is not None and found.owner is AddonOwner.OTHER:
        return found
    has_node = await rollout.has_ready_node(door.client)
    if addon.needs_node and not has_node:
        raise NoNode("no node of the cluster is ready to run it; onboard the cluster again when there is one.")
    await ensure_namespace(door.client, addon.namespace, privileged=addon.privileged)
    release = Release(addon.release, addon.namespace, addon.chart_ref(mirror), addon.values(about))
    # Helm would wait for every node's pod, and so forever for that of a node that is down.
    revision = await door.helm.ensure(release, timeout_s=timeout_s, wait=False)
    if has_node:
        if found is not None:
            await rollout.retry_stuck(door.client, addon)
        await rollout.wait_until_up(door.client, addon, timeout_s=timeout_s)
    return Found(AddonOwner.OURS, addon.release, addon.namespace, revision.chart)


async def remove(addon: Addon, door: Door, *, timeout_s: float) -> bool:
    """Uninstall the add-on if it is ours and see that it and its pods are gone; whether there was anything to do.

    Raises HelmError, KubeError.
    """
    found = await find(addon, door)
    if found is None or found.owner is AddonOwner.OTHER or found.release is None:
        return False
    try:
        await door.helm.remove(found.release, found.namespace, timeout_s=timeout_s)
    except NotReadyInTime:
        # Its clean-up jobs need an image and a node; a cluster that has neither must still be rid of the release.
        await door.helm.remove(found.release, found.namespace, timeout_s=timeout_s, run_hooks=False)
    if await door.helm.find(found.release, found.namespace) is not None:
        raise HelmError(f"the release {found.release} in {found.namespace} is still there after it was removed.")
    await rollout.wait_until_gone(door.client, release=found.release, namespace=found.namespace)
    return True


async def owner_now(addon: Addon, door: Door) -> Found | None:
    """Whose the add-on is as far as can be told, for the record of a failure. Raises KubeError."""
    try:
        return await find(addon, door)
    except HelmError:
        return None
