"""Writes down how the add-ons of a cluster stand. Sessions are the caller's."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert

from budcluster.hardware.addons import Addon
from budcluster.hardware.installer import Found
from budcluster.hardware.models import AddonName, AddonOwner, AddonState, ClusterAddon
from budcluster.kit.database import WriteSession


async def record(
    session: WriteSession,
    cluster_id: UUID,
    addon: Addon,
    state: AddonState,
    *,
    found: Found | None,
    detail: str | None = None,
    replace: bool = True,
) -> None:
    """How one add-on stands. Without one found, the row tells of our own try; `replace` is for a row that is there."""
    row = {
        "cluster_id": cluster_id,
        "name": addon.name,
        "owner": found.owner if found else AddonOwner.OURS,
        "state": state,
        "release": found.release if found else addon.release,
        "namespace": found.namespace if found else addon.namespace,
        "chart": found.chart if found else None,
        "detail": detail,
    }
    statement, index = insert(ClusterAddon).values(row), [ClusterAddon.cluster_id, ClusterAddon.name]
    if not replace:
        await session.execute(statement.on_conflict_do_nothing(index_elements=index))
        return
    changes = {key: statement.excluded[key] for key in row if key not in {"cluster_id", "name"}}
    await session.execute(statement.on_conflict_do_update(index_elements=index, set_=changes))


async def record_present(session: WriteSession, cluster_id: UUID, present: Sequence[tuple[Addon, Found]]) -> None:
    """What others installed, and no more what they took away. How ours do is told by the steps that make them."""
    for addon, found in present:
        is_theirs = found.owner is AddonOwner.OTHER
        await record(session, cluster_id, addon, AddonState.READY, found=found, replace=is_theirs)
    await session.execute(
        delete(ClusterAddon).where(
            ClusterAddon.cluster_id == cluster_id,
            ClusterAddon.owner == AddonOwner.OTHER,
            ClusterAddon.name.not_in([addon.name for addon, _ in present]),
        )
    )


async def forget(session: WriteSession, cluster_id: UUID, name: AddonName) -> None:
    """Know nothing of an add-on any more."""
    await session.execute(delete(ClusterAddon).where(ClusterAddon.cluster_id == cluster_id, ClusterAddon.name == name))
