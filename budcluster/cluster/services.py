"""What may be done with clusters. Sessions come from the caller, who commits."""

from uuid import UUID

import structlog

from budcluster.api.paging import Rows
from budcluster.audit import services as audit
from budcluster.cluster import repository
from budcluster.cluster.errors import ProvisioningNotAvailable
from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider
from budcluster.cluster.schemas import ClusterQuery, ClusterRegistration
from budcluster.kit.database import ReadSession, WriteSession

log = structlog.get_logger(__name__)


class ClusterService:
    """Registering clusters and looking at them."""

    async def list(self, session: ReadSession, query: ClusterQuery) -> Rows[Cluster]:
        """One page. Raises InvalidCursor."""
        return await repository.list_clusters(session, query)

    async def get(self, session: ReadSession, cluster_id: UUID) -> Cluster:
        """One cluster. Raises ClusterNotFound."""
        return await repository.get_cluster(session, cluster_id)

    async def register(self, session: WriteSession, wanted: ClusterRegistration, *, actor: str) -> Cluster:
        """Make a cluster known. It stays PROVISIONING until it is onboarded.

        Raises ClusterNameTaken and ProvisioningNotAvailable.
        """
        on_premises = wanted.provider is ClusterProvider.ON_PREMISES
        origin = wanted.origin or (ClusterOrigin.ADOPTED if on_premises else ClusterOrigin.PROVISIONED)
        if origin is ClusterOrigin.PROVISIONED:
            raise ProvisioningNotAvailable
        cluster = await repository.add_cluster(
            session,
            name=wanted.name,
            provider=wanted.provider,
            origin=origin,
            region=wanted.region,
            labels=wanted.labels,
        )
        await audit.record(
            session,
            actor=actor,
            action="cluster.registered",
            subject_type="cluster",
            subject_id=cluster.id,
            subject_name=cluster.name,
            facts={"provider": cluster.provider, "origin": cluster.origin},
        )
        log.info("cluster.registered", cluster_id=str(cluster.id), provider=cluster.provider)
        return cluster
