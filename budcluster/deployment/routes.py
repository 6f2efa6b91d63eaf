"""`/deployments`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from budcluster.api.dependencies import Read, provided
from budcluster.api.errors import InvalidCursor
from budcluster.api.etag import tag
from budcluster.api.problems import problems
from budcluster.api.schemas import Page
from budcluster.api.transaction import TransactionalRoute
from budcluster.deployment.errors import DeploymentNotFound
from budcluster.deployment.schemas import DeploymentAnswer, DeploymentQuery
from budcluster.deployment.services import DeploymentService

Deployments = Annotated[DeploymentService, provided(DeploymentService)]

router = APIRouter(prefix="/deployments", tags=["deployments"], route_class=TransactionalRoute)


@router.get("", operation_id="list_deployments", summary="List deployments", responses=problems(InvalidCursor))
async def list_deployments(
    query: Annotated[DeploymentQuery, Query()], session: Read, deployments: Deployments
) -> Page[DeploymentAnswer]:
    """Newest first unless sorted otherwise. Answers from the service's own records, never from the clusters."""
    return Page[DeploymentAnswer].model_validate(await deployments.list(session, query))


@router.get(
    "/{deployment_id}",
    operation_id="get_deployment",
    summary="Look at one deployment",
    responses=problems(DeploymentNotFound),
)
async def get_deployment(
    deployment_id: UUID, session: Read, deployments: Deployments, response: Response
) -> DeploymentAnswer:
    """The deployment as this service knows it, with an ETag for later changes."""
    deployment = await deployments.get(session, deployment_id)
    tag(response, deployment.version)
    return DeploymentAnswer.model_validate(deployment)
