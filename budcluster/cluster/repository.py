"""Clusters in the database."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import defer

from budcluster.api.paging import Listing, PageQuery, Rows
from budcluster.cluster.errors import ClusterNameTaken, ClusterNotFound
from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.kit.database import ReadSession, WriteSession

_LISTING = Listing(
    Cluster,
    key=Cluster.id,
    sorts={"created_at": Cluster.created_at, "updated_at": Cluster.updated_at, "name": Cluster.name},
    filters={
        "provider": Cluster.provider,
        "status": Cluster.status,
        "health": Cluster.health,
        "name": Cluster.name,
    },
    labels=Cluster.labels,
)

_UNLISTED = tuple(
    defer(column, raiseload=True)
    for column in (Cluster.adoption_report, Cluster.kubeconfig_encrypted, Cluster.settings)
)
"""Large or secret columns that no list shows; the hardware profile is loaded by nobody who does not ask for it."""


async def list_clusters(session: ReadSession, query: PageQuery) -> Rows[Cluster]:
    """One page of clusters, without what only one cluster's own routes show. Raises InvalidCursor."""
    return await _LISTING.page(session, query, select(Cluster).options(*_UNLISTED))


async def get_cluster(session: ReadSession, cluster_id: UUID) -> Cluster:
    """The cluster. Raises ClusterNotFound."""
    cluster = await session.get(Cluster, cluster_id)
    if cluster is None:
        raise ClusterNotFound(cluster_id)
    return cluster


async def add_cluster(
    session: WriteSession,
    *,
    name: str,
    provider: ClusterProvider,
    origin: ClusterOrigin,
    region: str | None,
    labels: dict[str, str],
) -> Cluster:
    """Write a new row. Of several that come at once with one name exactly one wins. Raises ClusterNameTaken."""
    row = {
        "name": name,
        "provider": provider,
        "origin": origin,
        "region": region,
        "labels": labels,
        "status": ClusterStatus.PROVISIONING,
        "version": 1,
    }
    statement = insert(Cluster).values(row).on_conflict_do_nothing(index_elements=[Cluster.name]).returning(Cluster)
    cluster = (await session.scalars(statement)).one_or_none()
    if cluster is None:
        taken_by = (await session.scalars(select(Cluster.id).where(Cluster.name == name))).one()
        raise ClusterNameTaken(name, taken_by)
    return cluster
