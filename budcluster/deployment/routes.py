"""`/deployments`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from budcluster.api.dependencies import Changing, CurrentActor, Read, Write, provided
from budcluster.api.errors import InvalidCursor
from budcluster.api.etag import IfMatch, tag
from budcluster.api.problems import problems
from budcluster.api.schemas import Page
from budcluster.api.transaction import TransactionalRoute
from budcluster.cluster.errors import ClusterNotFound, ClusterNotReady
from budcluster.deployment import capacity
from budcluster.deployment.errors import (
    ConfigNotUsable,
    DeploymentIsBeingDeleted,
    DeploymentNameTaken,
    DeploymentNeverServed,
    DeploymentNotFound,
    IngressHostTaken,
    NoCapacity,
    RevisionNotFound,
)
from budcluster.deployment.models import Deployment
from budcluster.deployment.schemas import (
    CreateQuery,
    DeleteQuery,
    DeploymentAnswer,
    DeploymentChange,
    DeploymentQuery,
    DeploymentRequest,
    DeploymentWithOperation,
    ForceQuery,
    Preview,
    Revisions,
    RollingBack,
    Scaling,
)
from budcluster.deployment.services import DeploymentService
from budcluster.deployment.values import image_shown
from budcluster.deployment.work import Accepted, DeploymentWork, Rendered
from budcluster.kit.database import WriteSession
from budcluster.kit.errors import StaleVersion
from budcluster.operations.errors import OperationBusy

Deployments = Annotated[DeploymentService, provided(DeploymentService)]
Work = Annotated[DeploymentWork, provided(DeploymentWork)]

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


@router.post(
    "",
    status_code=202,
    operation_id="create_deployment",
    summary="Deploy a model",
    response_model=DeploymentWithOperation | Preview,
    responses=problems(
        ClusterNotFound, ClusterNotReady, ConfigNotUsable, DeploymentNameTaken, IngressHostTaken, NoCapacity
    ),
)
async def create_deployment(
    body: DeploymentRequest,
    query: Annotated[CreateQuery, Query()],
    changing: Changing,
    work: Work,
    actor: CurrentActor,
    response: Response,
) -> DeploymentWithOperation | Preview:
    """Checks whether the cluster has room, then works in the background. `dry_run` only shows, with status 200."""
    if query.dry_run:
        response.status_code = 200
        return _preview(await work.preview(body, actor=actor.name))
    # Whoever waits for the hub, or for others who want room on the cluster, holds no connection meanwhile.
    known = await work.describe(body, actor=actor.name)
    await changing.hold(work.turns.on(body.cluster_id))
    session = await changing.begin()
    return accepted(response, await work.create(session, body, known, force=query.force, actor=actor.name))


@router.patch(
    "/{deployment_id}",
    operation_id="change_deployment",
    summary="Change how a model is served",
    response_model=DeploymentWithOperation | DeploymentAnswer,
    responses=problems(
        DeploymentNotFound, DeploymentIsBeingDeleted, DeploymentNeverServed, ConfigNotUsable, IngressHostTaken,
        NoCapacity, OperationBusy, StaleVersion,
    ),
)  # fmt: skip
async def change_deployment(
    deployment_id: UUID,
    body: DeploymentChange,
    query: Annotated[ForceQuery, Query()],
    changing: Changing,
    work: Work,
    actor: CurrentActor,
    response: Response,
    if_match: IfMatch = None,
) -> DeploymentWithOperation | DeploymentAnswer:
    """Rolls the new revision out and goes back by itself when it does not serve: 202. Labels alone change at once."""
    session = await _in_turn(changing, work, deployment_id)
    done = await work.change(session, deployment_id, body, force=query.force, actor=actor.name, if_match=if_match)
    if isinstance(done, Deployment):
        tag(response, done.version)
        return DeploymentAnswer.model_validate(done)
    response.status_code = 202
    return accepted(response, done)


@router.post(
    "/{deployment_id}/scale",
    status_code=202,
    operation_id="scale_deployment",
    summary="Change the number of copies",
    responses=problems(
        DeploymentNotFound, DeploymentIsBeingDeleted, DeploymentNeverServed, ConfigNotUsable, NoCapacity,
        OperationBusy, StaleVersion,
    ),
)  # fmt: skip
async def scale_deployment(
    deployment_id: UUID,
    body: Scaling,
    query: Annotated[ForceQuery, Query()],
    changing: Changing,
    work: Work,
    actor: CurrentActor,
    response: Response,
    if_match: IfMatch = None,
) -> DeploymentWithOperation:
    """Zero parks the deployment; any other number brings it back."""
    session = await _in_turn(changing, work, deployment_id)
    done = await work.scale(
        session, deployment_id, body.replicas, force=query.force, actor=actor.name, if_match=if_match
    )
    return accepted(response, done)


@router.post(
    "/{deployment_id}/rollback",
    status_code=202,
    operation_id="roll_back_deployment",
    summary="Go back to an earlier revision",
    responses=problems(
        DeploymentNotFound, DeploymentIsBeingDeleted, DeploymentNeverServed, RevisionNotFound, ConfigNotUsable,
        IngressHostTaken, NoCapacity, OperationBusy, StaleVersion,
    ),
)  # fmt: skip
async def roll_back_deployment(
    deployment_id: UUID,
    body: RollingBack,
    query: Annotated[ForceQuery, Query()],
    changing: Changing,
    work: Work,
    actor: CurrentActor,
    response: Response,
    if_match: IfMatch = None,
) -> DeploymentWithOperation:
    """Makes a new revision that runs as the earlier one did; the number of copies stays."""
    session = await _in_turn(changing, work, deployment_id)
    done = await work.roll_back(
        session, deployment_id, body.revision, force=query.force, actor=actor.name, if_match=if_match
    )
    return accepted(response, done)


@router.get(
    "/{deployment_id}/revisions",
    operation_id="list_revisions",
    summary="List the revisions of a deployment",
    responses=problems(DeploymentNotFound),
)
async def list_revisions(deployment_id: UUID, session: Read, deployments: Deployments) -> Revisions:
    """Newest first."""
    return await deployments.revisions(session, deployment_id)


@router.delete(
    "/{deployment_id}",
    status_code=202,
    operation_id="delete_deployment",
    summary="Delete a deployment",
    responses=problems(DeploymentNotFound, OperationBusy),
)
async def delete_deployment(
    deployment_id: UUID,
    query: Annotated[DeleteQuery, Query()],
    session: Write,
    work: Work,
    actor: CurrentActor,
    response: Response,
) -> DeploymentWithOperation:
    """Cancels running work, uninstalls, and looks that nothing is left; then the deployment is gone."""
    done = await work.delete(session, deployment_id, keep_cache=query.keep_cache, force=query.force, actor=actor.name)
    return accepted(response, done)


def accepted(response: Response, done: Accepted) -> DeploymentWithOperation:
    """The answer to a request for long work."""
    response.headers["Location"] = f"/operations/{done.operation.id}"
    tag(response, done.deployment.version)
    answer = DeploymentAnswer.model_validate(done.deployment).model_dump()
    return DeploymentWithOperation.model_validate(
        {**answer, "operation_id": done.operation.id, "warnings": list(dict.fromkeys(done.warnings))}
    )


async def _in_turn(changing: Changing, work: DeploymentWork, deployment_id: UUID) -> WriteSession:
    """The session, when nobody else of this process decides about the deployment's cluster."""
    await changing.hold(work.turns.of(deployment_id))
    return await changing.begin()


def _preview(done: Rendered) -> Preview:
    return Preview.model_validate(
        {
            "fit": capacity.as_facts(done.decision.fit),
            "warnings": list(dict.fromkeys(done.warnings)),
            "runtime": done.decision.runtime,
            "image": image_shown(done.decision.values),
            "max_model_len": done.decision.max_model_len,
            "values": done.decision.values,
            "manifests": done.manifests,
        }
    )
