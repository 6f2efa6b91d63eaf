"""`/clusters`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from budcluster.api.dependencies import CurrentActor, Read, Write, provided
from budcluster.api.errors import InvalidCursor
from budcluster.api.etag import tag
from budcluster.api.problems import problems
from budcluster.api.schemas import Page
from budcluster.api.transaction import TransactionalRoute
from budcluster.cluster.adoption import ClusterWork
from budcluster.cluster.errors import (
    ClusterHasDeployments,
    ClusterIsBeingDeleted,
    ClusterKnownAlready,
    ClusterNameTaken,
    ClusterNotFound,
    GpusInUse,
    KubeconfigNotAccepted,
    ProvisioningNotAvailable,
)
from budcluster.cluster.models import Cluster
from budcluster.cluster.schemas import (
    ClusterAnswer,
    ClusterListed,
    ClusterQuery,
    ClusterRegistration,
    ClusterWithOperation,
    Onboarding,
)
from budcluster.cluster.services import ClusterService
from budcluster.operations.errors import OperationBusy
from budcluster.operations.models import Operation

Clusters = Annotated[ClusterService, provided(ClusterService)]
Work = Annotated[ClusterWork, provided(ClusterWork)]

router = APIRouter(prefix="/clusters", tags=["clusters"], route_class=TransactionalRoute)


@router.get("", operation_id="list_clusters", summary="List clusters", responses=problems(InvalidCursor))
async def list_clusters(
    query: Annotated[ClusterQuery, Query()], session: Read, clusters: Clusters
) -> Page[ClusterListed]:
    """Newest first unless sorted otherwise. Answers from the service's own records, never from the clusters."""
    return Page[ClusterListed].model_validate(await clusters.list(session, query))


@router.post(
    "",
    status_code=201,
    operation_id="register_cluster",
    summary="Register a cluster",
    responses=problems(ClusterNameTaken, ProvisioningNotAvailable),
)
async def register_cluster(
    body: ClusterRegistration, session: Write, clusters: Clusters, actor: CurrentActor, response: Response
) -> ClusterAnswer:
    """Makes an existing cluster known. It stays PROVISIONING until it is onboarded with a kubeconfig."""
    cluster = await clusters.register(session, body, actor=actor.name)
    tag(response, cluster.version)
    response.headers["Location"] = f"/clusters/{cluster.id}"
    return ClusterAnswer.model_validate(cluster)


@router.get(
    "/{cluster_id}", operation_id="get_cluster", summary="Look at one cluster", responses=problems(ClusterNotFound)
)
async def get_cluster(cluster_id: UUID, session: Read, clusters: Clusters, response: Response) -> ClusterAnswer:
    """The cluster as this service knows it, with an ETag for later changes."""
    cluster = await clusters.get(session, cluster_id)
    tag(response, cluster.version)
    return ClusterAnswer.model_validate(cluster)


@router.post(
    "/{cluster_id}/onboard",
    status_code=202,
    operation_id="onboard_cluster",
    summary="Take an existing cluster into service",
    responses=problems(
        ClusterNotFound, ClusterIsBeingDeleted, ClusterKnownAlready, GpusInUse, KubeconfigNotAccepted, OperationBusy
    ),
)
async def onboard_cluster(
    cluster_id: UUID, body: Onboarding, session: Write, work: Work, actor: CurrentActor, response: Response
) -> ClusterWithOperation:
    """Checks the kubeconfig at once, then works in the background. Repeat it to go on after a failure."""
    cluster, operation = await work.onboard(
        session,
        cluster_id,
        kubeconfig=body.kubeconfig,
        context=body.context,
        choices=body.choices,
        force=body.force,
        take_over=body.take_over,
        actor=actor.name,
    )
    return accepted(response, cluster, operation)


@router.delete(
    "/{cluster_id}",
    status_code=202,
    operation_id="delete_cluster",
    summary="Delete a cluster",
    responses=problems(ClusterNotFound, ClusterHasDeployments, OperationBusy),
)
async def delete_cluster(
    cluster_id: UUID, session: Write, work: Work, actor: CurrentActor, response: Response
) -> ClusterWithOperation:
    """Takes away what the service brought into an adopted cluster, then forgets it. Running work is cancelled first."""
    cluster, operation = await work.delete(session, cluster_id, actor=actor.name)
    return accepted(response, cluster, operation)


def accepted(response: Response, cluster: Cluster, operation: Operation) -> ClusterWithOperation:
    """The answer to a request for long work."""
    response.headers["Location"] = f"/operations/{operation.id}"
    tag(response, cluster.version)
    answer = ClusterAnswer.model_validate(cluster).model_dump()
    return ClusterWithOperation.model_validate({**answer, "operation_id": operation.id})
