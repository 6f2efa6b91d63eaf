"""Who hands out nvidia.com/gpu in a cluster, and who shall: one alone, and never by taking GPUs from running pods."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from budcluster.hardware import installer
from budcluster.hardware.addons import Addon, AddonFailed
from budcluster.hardware.gpu_holders import gpu_holders_now
from budcluster.hardware.gpu_operator import serves_gpus
from budcluster.hardware.models import AddonOwner
from budcluster.hardware.reading.profile import Sharing
from budcluster.kube.client import ClusterClient
from budcluster.kube.door import Door
from budcluster.kube.resources import DAEMON_SETS

_PLUGIN_CHART: Final = "nvidia-device-plugin"
_PLUGIN_IMAGES: Final = ("k8s-device-plugin", "nvidia-gpu-device-plugin")
_DISCOVERY: Final = "gpu-feature-discovery"
_NAMED: Final = 5


class SharingRefused(AddonFailed):
    """GPUs cannot be handed out as asked without breaking something; it is as before. The message says why."""

    next_step = "Do what the message says, then choose again: POST /clusters/{id}/install-hami."


class Server(StrEnum):
    """Who hands out GPUs."""

    HAMI = "HAMI"
    """Our HAMi."""
    OPERATOR = "OPERATOR"
    """NVIDIA's plugin, brought by our GPU operator."""
    OTHERS = "OTHERS"
    """Somebody else, or nobody; either way not us."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found of all that may hand out GPUs."""

    hami: AddonOwner | None = None
    operator: AddonOwner | None = None
    operator_serves: bool = False
    """Whether the operator's plugin is switched on."""
    plugin: str | None = None
    """NVIDIA's plugin as somebody installed it by itself: what it is and where."""
    holders: Sequence[str] = ()
    """Running pods that hold GPUs."""

    @property
    def server(self) -> Server:
        """Who hands out GPUs now."""
        if self.hami is AddonOwner.OURS:
            return Server.HAMI
        if self.operator is AddonOwner.OURS and self.operator_serves:
            return Server.OPERATOR
        return Server.OTHERS


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is to hand out GPUs, in words too."""

    server: Server
    said: str
    refused: bool = False
    """Whether this is not what was asked for; `said` tells why, and what to do."""


def choose(wish: Sharing, seen: Seen, *, force: bool = False) -> Choice:
    """Who is to hand out GPUs. `force` takes them from running pods."""
    theirs = _beside_their_hami(wish, seen) or _beside_their_plugin(wish, seen) or _beside_their_operator(wish, seen)
    choice = theirs or _OURS[wish]
    if choice.refused or choice.server is seen.server or not seen.holders or force:
        return choice
    named = ", ".join(seen.holders[:_NAMED]) + (" and more" if len(seen.holders) > _NAMED else "")
    return _refusal(
        seen,
        f"{len(seen.holders)} running pods hold GPUs and would break: {named}. Stop them first, or choose the sharing "
        'again with "force": true.',
    )


_OURS: Final[Mapping[Sharing, Choice]] = {
    Sharing.HAMI: Choice(Server.HAMI, "GPUs are shared by HAMi."),
    Sharing.TIME_SLICING: Choice(Server.OPERATOR, "GPUs are time-sliced by NVIDIA's own plugin."),
    Sharing.NONE: Choice(Server.OPERATOR, "GPUs are handed out whole by NVIDIA's own plugin."),
}


def _refusal(seen: Seen, why: str) -> Choice:
    return Choice(seen.server, why, refused=True)


def _beside_their_hami(wish: Sharing, seen: Seen) -> Choice | None:
    if seen.hami is not AddonOwner.OTHER:
        return None
    if wish is Sharing.HAMI:
        return Choice(Server.OTHERS, "HAMi is there already, installed by somebody else; it is used as it is.")
    return _refusal(seen, "A HAMi that somebody else installed shares the GPUs; have it removed, then try again.")


def _beside_their_plugin(wish: Sharing, seen: Seen) -> Choice | None:
    if seen.plugin is None:
        return None
    theirs = f"{seen.plugin}, installed by somebody else, offers nvidia.com/gpu"
    if wish is Sharing.NONE:
        return Choice(Server.OTHERS, f"{theirs}; GPUs are handed out as it is set up.")
    return _refusal(seen, f"{theirs}, and two must not; have it removed or kept off the GPU nodes, then try again.")


def _beside_their_operator(wish: Sharing, seen: Seen) -> Choice | None:
    if seen.operator is not AddonOwner.OTHER:
        return None
    theirs = "The GPU operator of this cluster was installed by somebody else"
    if wish is Sharing.TIME_SLICING:
        return _refusal(seen, f"{theirs}; time-slicing is theirs to set up in its devicePlugin.config.")
    if wish is Sharing.NONE:
        how = "hands out GPUs as it is set up" if seen.operator_serves else "is switched off: nobody hands out GPUs"
        return Choice(Server.OTHERS, f"{theirs}, and its device plugin {how}.")
    if seen.operator_serves:
        return _refusal(
            seen,
            f"{theirs}, and its device plugin offers nvidia.com/gpu; have that plugin switched off "
            "(devicePlugin.enabled=false in its values), then try again.",
        )
    return None


async def look(door: Door, *, hami: Addon, operator: Addon) -> Seen:
    """What there is now. Raises HelmError, KubeError."""
    releases = await door.helm.list_releases()
    found_hami = await installer.find(hami, door, releases=releases)
    found_operator = await installer.find(operator, door, releases=releases)
    return Seen(
        hami=found_hami.owner if found_hami else None,
        operator=found_operator.owner if found_operator else None,
        operator_serves=found_operator is not None and await serves_gpus(door.client),
        plugin=await _lone_plugin(door.client, releases),
        holders=await gpu_holders_now(door.client),
    )


async def _lone_plugin(client: ClusterClient, releases: Sequence[Mapping[str, Any]]) -> str | None:
    for row in releases:
        if installer.is_chart(_PLUGIN_CHART, str(row["chart"])):
            return f"The release {row['name']} of NVIDIA's device plugin in {row['namespace']}"
    async for page in client.list_pages(DAEMON_SETS):
        for daemon_set in page["items"]:
            if is_lone_plugin(daemon_set):
                metadata = daemon_set["metadata"]
                return f"The DaemonSet {metadata['name']} in {metadata['namespace']}"
    return None


def is_lone_plugin(daemon_set: Mapping[str, Any]) -> bool:
    """Whether a DaemonSet is a device plugin for NVIDIA GPUs that no GPU operator made, and has nodes to run on."""
    metadata, status = daemon_set["metadata"], daemon_set.get("status") or {}
    if any(owner.get("kind") == "ClusterPolicy" for owner in metadata.get("ownerReferences") or ()):
        return False
    if status.get("observedGeneration") and not status.get("desiredNumberScheduled"):
        return False
    return any(_is_plugin(container) for container in _containers(daemon_set))


def _containers(daemon_set: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from ((daemon_set.get("spec") or {}).get("template") or {}).get("spec", {}).get("containers") or ()


def _is_plugin(container: Mapping[str, Any]) -> bool:
    repository = str(container.get("image", "")).partition("@")[0]
    name = repository.rpartition("/")[2].partition(":")[0]
    words = (container.get("name", ""), *(container.get("command") or ()), *(container.get("args") or ()))
    # One image holds both; only one of them offers GPUs.
    return name in _PLUGIN_IMAGES and not any(_DISCOVERY in str(word) for word in words)
