"""`/deployments` from outside."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select

from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.config import Settings
from budcluster.deployment.models import Deployment, DeploymentStatus, RuntimeType
from budcluster.kit.database import Database
from tests.deployment.lot import SMALL, Lot
from tests.fixtures.app import client_of, quiet_service, running
from tests.hardware import nodes

ENDPOINT, OTHER = UUID(int=7), UUID(int=8)
TOKEN: dict[str, Any] = {"purpose": "HUGGING_FACE", "name": "hub", "secret": {"token": "hf_" + "a" * 30}}


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


async def test_requests_name_the_model_as_its_runtime_does(
    client: httpx.AsyncClient, database: Database, chat: UUID
) -> None:
    assert (await client.get(f"/deployments/{chat}")).json()["served_model"] == "chat"
    async with database.writing() as session:
        (await session.get_one(Deployment, chat)).runtime = RuntimeType.TENSORRT_LLM
    shown = (await client.get(f"/deployments/{chat}")).json()
    assert shown["served_model"] == shown["model"] == "meta-llama/Llama-3.1-8B-Instruct"


async def test_a_dry_run_shows_fit_values_and_manifests_and_leaves_nothing(
    cluster_settings: Settings, database: Database
) -> None:
    async with running(quiet_service(cluster_settings)) as app, client_of(app) as client:
        lot = Lot(client, database)
        await lot.prepare([nodes.a100x8()])
        token = (await client.post("/credentials", json=TOKEN)).json()["id"]
        secrets = [{"env": "HUB_TOKEN", "credential_id": token, "field": "token"}]
        config = {"model_config": SMALL, "hugging_face_credential_id": token, "secrets": secrets, "replicas": 2}
        body = {"cluster_id": str(lot.cluster_id), "model": "org/model", "name": "chat", "config": config}
        for _ in range(2):
            reply = await client.post(
                "/deployments", params={"dry_run": True}, json=body, headers={"Idempotency-Key": "look"}
            )
            assert reply.status_code == 200, reply.text
            assert "Idempotent-Replay" not in reply.headers
        refused = await client.post("/deployments", params={"dry_run": True}, json=body | {"model": "--help"})
        assert refused.status_code == 422
    shown = reply.json()
    assert (shown["fit"]["verdict"], shown["fit"]["nodes"]) == ("yes", ["node-0", "node-0"])
    assert (shown["fit"]["resource"], shown["runtime"], shown["max_model_len"]) == ("nvidia.com/gpu", "VLLM", 4096)
    assert shown["values"]["replicas"] == 2
    kinds = {manifest["kind"]: manifest for manifest in shown["manifests"]}
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= set(kinds)
    (container,) = kinds["Deployment"]["spec"]["template"]["spec"]["containers"]
    named = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one}
    assert container["image"] == shown["image"]
    assert {name: key["key"] for name, key in named.items()} == {"HF_TOKEN": "HF_TOKEN", "HUB_TOKEN": "HUB_TOKEN"}
    assert {key["name"] for key in named.values()} == {f"{kinds['Deployment']['metadata']['name']}-env"}
    assert TOKEN["secret"]["token"] not in reply.text
    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(Deployment)) == 0
