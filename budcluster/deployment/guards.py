"""What deployments tell other features: who is on a cluster, and who works with a credential."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import or_, select

from budcluster.credentials.services import User
from budcluster.deployment.models import Deployment
from budcluster.kit.database import ReadSession


class DeploymentsOnCluster:
    """Implements `cluster.adoption.DeletionGuard`."""

    async def occupants(self, session: ReadSession, cluster_id: UUID) -> Sequence[str]:
        """Names of the cluster's deployments, whatever their status."""
        mine = select(Deployment.name).where(Deployment.cluster_id == cluster_id)
        return (await session.scalars(mine.order_by(Deployment.name))).all()


class DeploymentsWithCredential:
    """Implements `credentials.services.UsageGuard`."""

    async def users_of(self, session: ReadSession, credential_id: UUID) -> Sequence[User]:
        """Deployments whose present config names the credential."""
        wanted = str(credential_id)
        named = or_(
            Deployment.config.contains({"hugging_face_credential_id": wanted}),
            Deployment.config.contains({"registry_credential_id": wanted}),
            Deployment.config.contains({"secrets": [{"credential_id": wanted}]}),
        )
        rows = await session.execute(select(Deployment.id, Deployment.name).where(named).order_by(Deployment.name))
        return [User("deployment", row.id, row.name) for row in rows]
