"""What may be done with deployments. Sessions come from the caller, who commits."""

from uuid import UUID

from budcluster.api.paging import Rows
from budcluster.deployment import repository
from budcluster.deployment.models import Deployment
from budcluster.deployment.schemas import DeploymentQuery
from budcluster.kit.database import ReadSession


class DeploymentService:
    """Looking at deployments."""

    async def list(self, session: ReadSession, query: DeploymentQuery) -> Rows[Deployment]:
        """One page. Raises InvalidCursor."""
        return await repository.list_deployments(session, query)

    async def get(self, session: ReadSession, deployment_id: UUID) -> Deployment:
        """One deployment. Raises DeploymentNotFound."""
        return await repository.get_deployment(session, deployment_id)
