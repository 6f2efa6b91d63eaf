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
from budcluster.cluster.errors import ClusterNameTaken, ClusterNotFound, ProvisioningNotAvailable
from budcluster.cluster.schemas import ClusterAnswer, ClusterQuery, ClusterRegistration
from budcluster.cluster.services import ClusterService

Clusters = Annotated[ClusterService, provided(ClusterService)]

router = APIRouter(prefix="/clusters", tags=["clusters"], route_class=TransactionalRoute)


@router.get("", operation_id="list_clusters", summary="List clusters", responses=problems(InvalidCursor))
async def list_clusters(
    query: Annotated[ClusterQuery, Query()], session: Read, clusters: Clusters
) -> Page[ClusterAnswer]:
    """Newest first unless sorted otherwise. Answers from the service's own records, never from the clusters."""
    return Page[ClusterAnswer].model_validate(await clusters.list(session, query))


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
