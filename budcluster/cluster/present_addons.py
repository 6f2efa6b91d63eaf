"""Add-ons that are in a cluster before anything is done there: seen, and told in the adoption report."""

from collections.abc import Sequence
from typing import Any

from budcluster.hardware import installer
from budcluster.hardware.addons import Addon
from budcluster.hardware.installer import Found
from budcluster.kube.door import Door

Present = list[tuple[Addon, Found]]


async def look(addons: Sequence[Addon], door: Door) -> Present:
    """Those that are installed, by anybody in any way. Raises HelmError, KubeError."""
    releases = await door.helm.list_releases()
    found = [(addon, await installer.find(addon, door, releases=releases)) for addon in addons]
    return [(addon, one) for addon, one in found if one is not None]


def told(present: Present) -> list[dict[str, Any]]:
    """For the report."""
    return [
        {
            "name": addon.name,
            "owner": found.owner,
            "release": found.release,
            "namespace": found.namespace,
            "version": found.chart.removeprefix(f"{addon.chart}-") if found.chart else None,
        }
        for addon, found in present
    ]
