"""`POST /deployments` and the changes: what is accepted, what is refused, and that no GPU is promised twice."""

import asyncio
from collections.abc import Awaitable
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from sqlalchemy import func, select

from budcluster.cluster.models import Cluster, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.deployment import repository
from budcluster.deployment.models import Deployment, DeploymentStatus, RuntimeType
from budcluster.hardware.reading.reader import read_cluster
from budcluster.kit.database import Database
from tests.deployment.models import LLAMA_8B
from tests.hardware import nodes

GPUS = 8


async def _cluster(database: Database, status: ClusterStatus = ClusterStatus.READY) -> UUID:
    node = nodes.a100x8()
    profile = orjson.loads(orjson.dumps(read_cluster([node], pods=[])))
    async with database.writing() as session:
        cluster = Cluster(
            name=f"lab-{uuid4().hex[:6]}",
            provider=ClusterProvider.ON_PREMISES,
            origin=ClusterOrigin.ADOPTED,
            status=status,
            hardware_profile=profile,
        )
        session.add(cluster)
        await session.flush()
        return cluster.id


@pytest.fixture
async def cluster_id(database: Database) -> UUID:
    """A READY cluster with one machine of eight A100s."""
    return await _cluster(database)


def _request(cluster_id: UUID, **changes: Any) -> dict[str, Any]:
    config = {"model_config": LLAMA_8B, **changes.pop("config", {})}
    return {"cluster_id": str(cluster_id), "model": "meta-llama/Llama-3.1-8B", "config": config, **changes}


async def test_a_request_is_accepted_with_its_operation_and_the_context_a_tenth_longer(
    client: httpx.AsyncClient, cluster_id: UUID
) -> None:
    body = _request(cluster_id, name="chat", config={"input_tokens": 1000, "output_tokens": 1000})
    answer = await client.post("/deployments", json=body)
    assert answer.status_code == 202, answer.text
    shown = answer.json()
    assert answer.headers["location"] == f"/operations/{shown['operation_id']}"
    assert (shown["status"], shown["runtime"], shown["max_model_len"]) == ("PENDING", "VLLM", 2200)
    assert shown["helm_release"].startswith("bud-chat-")
    assert "model_config" not in shown["config"]
    revisions = (await client.get(f"/deployments/{shown['id']}/revisions")).json()["items"]
    assert [(one["number"], one["is_current"], one["served_at"]) for one in revisions] == [(1, True, None)]


async def test_a_context_beyond_the_model_is_cut_with_a_warning(client: httpx.AsyncClient, cluster_id: UUID) -> None:
    answer = await client.post("/deployments", json=_request(cluster_id, config={"max_model_len": 200_000}))
    assert answer.json()["max_model_len"] == LLAMA_8B["max_position_embeddings"]
    assert "supports 131072" in " ".join(answer.json()["warnings"])


@pytest.mark.parametrize(
    ("pointer", "change"),
    [
        ("name", {"name": "a; rm -rf /"}),
        ("name", {"name": "{{ 7 * 7 }}"}),
        ("model", {"model": "--help"}),
        ("model", {"model": "../../etc/passwd"}),
        ("model", {"model": "a b"}),
        ("model", {"model": "org/name\n--api-key=x"}),
        ("runtime", {"runtime": "ollama"}),
        ("config/replicas", {"config": {"replicas": -1}}),
        ("config/replicas", {"config": {"replicas": 10**9}}),
        ("config/replicas", {"config": {"replicas": 1.5}}),
        ("config/replicas", {"config": {"replicas": "2"}}),
        ("config/image", {"config": {"image": "vllm/vllm-openai"}}),
        ("config/image", {"config": {"image": "$(id):latest"}}),
        ("config/image", {"config": {"image": "own/vllm@sha256:abc"}}),
        ("config/extra_args", {"config": {"extra_args": ["--data-parallel-size", "2"]}}),
        ("config/extra_args", {"config": {"extra_args": ["--gpu-memory-utilization", "2"]}}),
        ("config/cache", {"config": {"replicas": 2, "cache": {"mode": "existing", "claim": "models"}}}),
        ("config/extra_args", {"config": {"extra_args": ["--api-key", "x"]}}),
        ("config/extra_args", {"config": {"extra_args": ["--no-such-flag"]}}),
        ("config/extra_args", {"config": {"extra_args": ["; reboot"]}}),
        ("config/extra_args", {"config": {"extra_args": ["--seed\n--port"]}}),
        ("config/env", {"config": {"env": {"LD_PRELOAD": "/tmp/x.so"}}}),
        ("config/env", {"config": {"env": {"MY_API_KEY": "sk-1"}}}),
        ("config/env", {"config": {"env": {"HF_TOKEN": "hf_x"}}}),
        ("config/env", {"config": {"env": {"A-B": "1"}}}),
        ("config", {"config": {"max_model_len": 10, "input_tokens": 1, "output_tokens": 1}}),
        ("config", {"config": {"input_tokens": 1}}),
        ("config/gpu_share", {"config": {"gpu_share": {"memory_mib": 8000}, "tensor_parallel_size": 2}}),
        ("config/cache/host_path", {"config": {"cache": {"mode": "hostPath", "host_path": "/etc"}}}),
        (
            "config/cache/host_path",
            {"config": {"cache": {"mode": "hostPath", "host_path": "/var/lib/budcluster/../"}}},
        ),
        ("config/hugging_face_credential_id", {"config": {"hugging_face_credential_id": str(uuid4())}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_meant_or_would_inject_is_refused_by_field(
    client: httpx.AsyncClient, cluster_id: UUID, pointer: str, change: dict[str, Any]
) -> None:
    answer = await client.post("/deployments", json=_request(cluster_id, **change))
    assert answer.status_code in {404, 422}, answer.text
    if answer.status_code == 422:
        assert any(one["pointer"].startswith(f"/{pointer}") for one in answer.json()["errors"]), answer.text


async def test_harmless_names_that_hold_a_secret_word_in_part_pass(client: httpx.AsyncClient, cluster_id: UUID) -> None:
    env = {"TOKENIZERS_PARALLELISM": "false", "NCCL_DEBUG": "INFO"}
    assert (await client.post("/deployments", json=_request(cluster_id, config={"env": env}))).status_code == 202


async def test_only_a_ready_cluster_takes_deployments(client: httpx.AsyncClient, database: Database) -> None:
    busy = await _cluster(database, ClusterStatus.PROVISIONING)
    answer = await client.post("/deployments", json=_request(busy))
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/cluster-not-ready")


async def test_no_room_is_a_conflict_with_reasons_and_force_goes_on(
    client: httpx.AsyncClient, cluster_id: UUID
) -> None:
    body = _request(cluster_id, config={"replicas": 9})
    answer = await client.post("/deployments", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (409, "/problems/no-capacity")
    assert (problem["verdict"], problem["nearest"]) == ("no", ["with 8 replicas it fits"])
    assert problem["reasons"][0]["reasons"]
    assert (await client.post("/deployments", json=body, params={"force": True})).status_code == 202


async def test_a_name_is_given_once_a_cluster(client: httpx.AsyncClient, cluster_id: UUID) -> None:
    first = await client.post("/deployments", json=_request(cluster_id, name="chat"))
    second = await client.post("/deployments", json=_request(cluster_id, name="chat"))
    assert (second.status_code, second.json()["type"]) == (409, "/problems/deployment-name-taken")
    assert second.json()["deployment_id"] == first.json()["id"]


async def test_a_repeated_request_with_its_key_makes_one_deployment(
    client: httpx.AsyncClient, cluster_id: UUID
) -> None:
    def ask() -> Awaitable[httpx.Response]:
        return client.post("/deployments", json=_request(cluster_id), headers={"Idempotency-Key": "once"})

    replies = [*await asyncio.gather(ask(), ask()), await ask()]
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["id"] for reply in replies}) == 1


async def test_many_requests_at_once_never_promise_one_gpu_twice_and_hold_nobody_up(
    client: httpx.AsyncClient, cluster_id: UUID, database: Database
) -> None:
    body = _request(cluster_id)

    async def ask(number: int) -> int:
        headers = {"Idempotency-Key": f"request-{number}"} if number % 2 else {}
        return (await client.post("/deployments", json=body, headers=headers)).status_code

    asked = [asyncio.create_task(ask(number)) for number in range(200)]
    meanwhile = []
    while not all(one.done() for one in asked):
        meanwhile.append((await client.get("/deployments")).status_code)
    codes = await asyncio.gather(*asked)
    assert (codes.count(202), codes.count(409)) == (GPUS, 200 - GPUS)
    assert set(meanwhile) == {200}
    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(Deployment)) == GPUS


async def test_work_that_never_served_cannot_be_changed_but_deleted(
    client: httpx.AsyncClient, cluster_id: UUID, database: Database
) -> None:
    created = (await client.post("/deployments", json=_request(cluster_id))).json()
    path = f"/deployments/{created['id']}"
    for scaling in ({"replicas": -1}, {"replicas": 1.5}, {"replicas": 101}, {}):
        assert (await client.post(f"{path}/scale", json=scaling)).status_code == 422
    busy = await client.post(f"{path}/scale", json={"replicas": 2})
    assert (busy.status_code, busy.json()["type"]) == (409, "/problems/operation-busy")
    deleted = await client.delete(path)
    assert (deleted.status_code, deleted.json()["status"]) == (202, "DELETING")
    again = await client.delete(path)
    assert again.json()["operation_id"] == deleted.json()["operation_id"]
    late = await client.post(f"{path}/scale", json={"replicas": 2})
    assert (late.status_code, late.json()["type"]) == (409, "/problems/deployment-is-being-deleted")
    async with database.reading() as session:
        row = await session.get(Deployment, UUID(created["id"]))
    assert row is not None
    assert row.status is DeploymentStatus.DELETING


async def test_a_cluster_with_deployments_is_not_deleted(client: httpx.AsyncClient, cluster_id: UUID) -> None:
    await client.post("/deployments", json=_request(cluster_id, name="chat"))
    answer = await client.delete(f"/clusters/{cluster_id}")
    assert (answer.status_code, answer.json()["deployments"]) == (409, ["chat"])


async def test_a_credential_in_use_is_not_deleted(client: httpx.AsyncClient, cluster_id: UUID) -> None:
    secret = {"purpose": "HUGGING_FACE", "name": "hub", "secret": {"token": "hf_" + "a" * 30}}
    credential = (await client.post("/credentials", json=secret)).json()["id"]
    config = {"hugging_face_credential_id": credential}
    created = await client.post("/deployments", json=_request(cluster_id, name="chat", config=config))
    assert created.status_code == 202, created.text
    answer = await client.delete(f"/credentials/{credential}")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/credential-in-use")
    wrong = await client.post("/deployments", json=_request(cluster_id, config={"registry_credential_id": credential}))
    assert wrong.json()["errors"][0]["pointer"] == "/config/registry_credential_id"


async def test_a_row_that_changed_meanwhile_can_still_be_locked(database: Database, cluster_id: UUID) -> None:
    async with database.writing() as session:
        made = Deployment(
            cluster_id=cluster_id, name="chat", model="m", runtime=RuntimeType.VLLM, namespace="n", helm_release="r",
            status=DeploymentStatus.RUNNING,
        )  # fmt: skip
        session.add(made)
    async with database.writing() as session:
        seen = await repository.get_deployment(session, made.id)
        async with database.writing() as other:
            (await repository.lock_deployment(other, made.id)).replicas_ready = 1
        locked = await repository.lock_deployment(session, made.id)
        assert (locked is seen, locked.replicas_ready, locked.version) == (True, 1, 2)
