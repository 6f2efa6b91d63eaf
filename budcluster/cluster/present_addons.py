"""Add-ons that are in a cluster before anything is done there: seen, told in the adoption report, and written down."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert

from budcluster.hardware import installer
from budcluster.hardware.addons import Addon
from budcluster.hardware.installer import Found
from budcluster.hardware.models import AddonOwner, AddonState, ClusterAddon
from budcluster.kit.database import WriteSession
from budcluster.kube.door import Door

Present = dict[Addon, Found]


async def look(addons: Sequence[Addon], door: Door) -> Present:
    """Those that are installed, by anybody in any way. Raises HelmError, KubeError."""
    releases = await door.helm.list_releases()
    found = {addon: await installer.find(addon, door, releases=releases) for addon in addons}
    return {addon: one for addon, one in found.items() if one is not None}


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
        for addon, found in present.items()
    ]


async def write_down(session: WriteSession, cluster_id: UUID, present: Present) -> None:
    """Rows for what others installed, none for what they took away. How ours do is told by the steps that make them."""
    for addon, found in present.items():
        row = {
            "cluster_id": cluster_id,
            "name": addon.name,
            "owner": found.owner,
            "state": AddonState.READY,
            "release": found.release,
            "namespace": found.namespace,
            "chart": found.chart,
            "detail": None,
        }
        statement = insert(ClusterAddon).values(row)
        index = [ClusterAddon.cluster_id, ClusterAddon.name]
        if found.owner is AddonOwner.OURS:
            await session.execute(statement.on_conflict_do_nothing(index_elements=index))
        else:
            changes = {key: statement.excluded[key] for key in row if key not in {"cluster_id", "name"}}
            await session.execute(statement.on_conflict_do_update(index_elements=index, set_=changes))
    await session.execute(
        delete(ClusterAddon).where(
            ClusterAddon.cluster_id == cluster_id,
            ClusterAddon.owner == AddonOwner.OTHER,
            ClusterAddon.name.not_in([addon.name for addon in present]),
        )
    )
