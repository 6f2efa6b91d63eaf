"""Deployments in the database."""

from uuid import UUID

from sqlalchemy import select

from budcluster.api.paging import Listing, PageQuery, Rows
from budcluster.deployment.errors import DeploymentNotFound, RevisionNotFound
from budcluster.deployment.models import Deployment, DeploymentRevision
from budcluster.kit.database import ReadSession, WriteSession

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


async def lock_deployment(session: WriteSession, deployment_id: UUID) -> Deployment:
    """The deployment's row, held until the transaction ends. Raises DeploymentNotFound."""
    deployment = await find_locked(session, deployment_id)
    if deployment is None:
        raise DeploymentNotFound(deployment_id)
    return deployment


async def find_locked(session: WriteSession, deployment_id: UUID) -> Deployment | None:
    """The row as it is now, held until the transaction ends; None when it is gone."""
    # Not session.get: with a lock that refuses a row which has changed since this session first saw it.
    held = select(Deployment).where(Deployment.id == deployment_id).with_for_update()
    return (await session.scalars(held.execution_options(populate_existing=True))).one_or_none()


async def revisions_of(session: ReadSession, deployment_id: UUID) -> list[DeploymentRevision]:
    """All revisions, newest first."""
    mine = select(DeploymentRevision).where(DeploymentRevision.deployment_id == deployment_id)
    return list(await session.scalars(mine.order_by(DeploymentRevision.number.desc())))


async def get_revision(session: ReadSession, deployment_id: UUID, number: int) -> DeploymentRevision:
    """One revision. Raises RevisionNotFound."""
    revision = await session.get(DeploymentRevision, (deployment_id, number))
    if revision is None:
        raise RevisionNotFound(number)
    return revision
