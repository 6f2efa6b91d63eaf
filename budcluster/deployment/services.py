"""What may be done with deployments. Sessions come from the caller, who commits."""

from uuid import UUID

from budcluster.api.paging import Rows
from budcluster.deployment import repository
from budcluster.deployment.models import Deployment
from budcluster.deployment.schemas import DeploymentQuery, RevisionAnswer, Revisions
from budcluster.deployment.values import image_shown
from budcluster.kit.database import ReadSession


class DeploymentService:
    """Looking at deployments."""

    async def list(self, session: ReadSession, query: DeploymentQuery) -> Rows[Deployment]:
        """One page. Raises InvalidCursor."""
        return await repository.list_deployments(session, query)

    async def get(self, session: ReadSession, deployment_id: UUID) -> Deployment:
        """One deployment. Raises DeploymentNotFound."""
        return await repository.get_deployment(session, deployment_id)

    async def revisions(self, session: ReadSession, deployment_id: UUID) -> Revisions:
        """All ways in which it ran, newest first. Raises DeploymentNotFound."""
        deployment = await repository.get_deployment(session, deployment_id)
        return Revisions(
            items=[
                RevisionAnswer(
                    number=row.number,
                    config=row.config,
                    image=image_shown(row.values),
                    actor=row.actor,
                    reason=row.reason,
                    operation_id=row.operation_id,
                    created_at=row.created_at,
                    served_at=row.served_at,
                    is_current=row.number == deployment.revision,
                )
                for row in await repository.revisions_of(session, deployment_id)
            ]
        )
