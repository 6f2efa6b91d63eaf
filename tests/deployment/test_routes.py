"""`/deployments` from outside."""

from uuid import UUID, uuid4

import httpx
import pytest

from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.deployment.models import Deployment, DeploymentStatus, RuntimeType
from budcluster.kit.database import Database

ENDPOINT, OTHER = UUID(int=7), UUID(int=8)


@pytest.fixture
async def chat(database: Database) -> UUID:
    """A running deployment's id."""
    async with database.writing() as session:
        cluster = Cluster(
            name="lab",
            provider=ClusterProvider.ON_PREMISES,
            origin=ClusterOrigin.ADOPTED,
            status=ClusterStatus.READY,
        )
        session.add(cluster)
        await session.flush()
        deployment = Deployment(
            cluster_id=cluster.id,
            endpoint_id=ENDPOINT,
            name="chat",
            model="meta-llama/Llama-3.1-8B-Instruct",
            runtime=RuntimeType.VLLM,
            config={"tensor_parallel_size": 2},
            labels={"team": "search"},
            status=DeploymentStatus.RUNNING,
            namespace="budcluster-models",
            helm_release="bud-chat-1a2b3c4d",
            replicas_desired=2,
            replicas_ready=1,
        )
        session.add(deployment)
        await session.flush()
        return deployment.id


async def test_a_deployment_shows_what_runs_and_how_far(client: httpx.AsyncClient, chat: UUID) -> None:
    reply = await client.get(f"/deployments/{chat}")
    assert reply.status_code == 200, reply.text
    assert reply.headers["ETag"] == '"1"'
    shown = reply.json()
    assert shown["replicas"] == {"desired": 2, "ready": 1}
    assert (shown["status"], shown["runtime"], shown["servable"]) == ("RUNNING", "VLLM", False)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        *(
            (f"endpoint_id={ENDPOINT}", 1),
            (f"endpoint_id={UUID(int=8)}", 0),
            ("runtime=VLLM", 1),
            ("runtime=SGLANG", 0),
        ),
        *(("status=RUNNING&status=PARKED", 1), ("label=team:search", 1), ("name=other", 0), ("sort=name", 1)),
    ],
)
@pytest.mark.usefixtures("chat")
async def test_lists_filter(client: httpx.AsyncClient, query: str, count: int) -> None:
    reply = await client.get(f"/deployments?{query}")
    assert len(reply.json()["items"]) == count


async def test_a_deployment_that_is_not_there_is_a_problem(client: httpx.AsyncClient) -> None:
    reply = await client.get(f"/deployments/{uuid4()}")
    assert reply.status_code == 404
    assert reply.json()["type"] == "/problems/deployment-not-found"
