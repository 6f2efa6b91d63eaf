"""Deployments in the database."""

from uuid import UUID

from budcluster.api.paging import Listing, PageQuery, Rows
from budcluster.deployment.errors import DeploymentNotFound
from budcluster.deployment.models import Deployment
from budcluster.kit.database import ReadSession

_LISTING = Listing(
    Deployment,
    key=Deployment.id,
    sorts={"created_at": Deployment.created_at, "updated_at": Deployment.updated_at, "name": Deployment.name},
    filters={
        "cluster_id": Deployment.cluster_id,
        "endpoint_id": Deployment.endpoint_id,
        "model_id": Deployment.model_id,
        "runtime": Deployment.runtime,
        "status": Deployment.status,
        "name": Deployment.name,
    },
    labels=Deployment.labels,
)


async def list_deployments(session: ReadSession, query: PageQuery) -> Rows[Deployment]:
    """One page of deployments. Raises InvalidCursor."""
    return await _LISTING.page(session, query)


async def get_deployment(session: ReadSession, deployment_id: UUID) -> Deployment:
    """The deployment. Raises DeploymentNotFound."""
    deployment = await session.get(Deployment, deployment_id)
    if deployment is None:
        raise DeploymentNotFound(deployment_id)
    return deployment
