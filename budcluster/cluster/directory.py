"""What packages below may know of clusters."""

from uuid import UUID

from sqlalchemy import select

from budcluster.cluster.errors import ClusterNotFound
from budcluster.cluster.models import Cluster
from budcluster.hardware.services import Detected
from budcluster.kit.database import ReadSession


class StoredClusters:
    """Implements `hardware.services.ClusterDirectory`."""

    async def require(self, session: ReadSession, cluster_id: UUID) -> None:
        """Raises ClusterNotFound."""
        if await session.scalar(select(Cluster.id).where(Cluster.id == cluster_id)) is None:
            raise ClusterNotFound(cluster_id)

    async def detected(self, session: ReadSession, cluster_id: UUID) -> Detected | None:
        """The sum of the stored profile, not its nodes. Raises ClusterNotFound."""
        profile = Cluster.hardware_profile
        found = await session.execute(
            select(Cluster.hardware_detected_at, profile["summary"], profile["gaps"]).where(Cluster.id == cluster_id)
        )
        row = found.one_or_none()
        if row is None:
            raise ClusterNotFound(cluster_id)
        at, summary, gaps = row
        return None if at is None or summary is None else Detected(at, summary, gaps or [])
