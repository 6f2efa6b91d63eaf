"""Waiting for a decision about a cluster's room: without a connection, and not for ever."""

import asyncio
from uuid import UUID

import httpx
from sqlalchemy import func, select

from budcluster.config import Settings
from budcluster.deployment import capacity
from budcluster.deployment.models import Deployment, DeploymentStatus
from budcluster.deployment.turns import Turns
from budcluster.deployment.work import DeploymentWork
from budcluster.kit.database import Database
from budcluster.operations.models import Claim, Operation, OperationStatus
from tests.api.test_problems import assert_problem
from tests.deployment.lot import Lot
from tests.fixtures.app import client_of, quiet_service, running
from tests.hardware import nodes


async def _failed(lot: Lot) -> str:
    """Path of the operation of a first start that failed."""
    created = (await lot.create()).json()
    async with lot.database.writing() as session:
        operation = await session.get_one(Operation, UUID(created["operation_id"]))
        operation.status, operation.claim = OperationStatus.FAILED, Claim.NONE
        deployment = await session.get_one(Deployment, UUID(created["id"]))
        deployment.status = DeploymentStatus.FAILED
    return f"/operations/{operation.id}"


async def test_retries_wait_for_their_turn_without_a_connection(settings: Settings, database: Database) -> None:
    few = settings.database.model_copy(update={"pool_size": 2, "pool_overflow": 0, "connect_timeout_s": 15.0})
    service = quiet_service(settings.model_copy(update={"database": few}))
    async with running(service) as app, client_of(app) as client:
        lot = Lot(client, database)
        await lot.prepare([nodes.a100x8()])
        failed = [await _failed(lot) for _ in range(8)]
        turns = service.edge.service(DeploymentWork).turns
        async with turns.on(lot.cluster_id):
            retries = [asyncio.create_task(client.post(f"{path}/retry")) for path in failed]
            for _ in range(20):
                assert (await client.get("/deployments")).status_code == 200
            assert not any(retry.done() for retry in retries)
        assert [answer.status_code for answer in await asyncio.gather(*retries)] == [202] * 8


async def test_what_begins_lets_those_go_first_who_wait_already(database: Database) -> None:
    turns, cluster_id = Turns(database), UUID(int=7)
    order: list[str] = []

    async def ask(name: str) -> None:
        async with turns.on(cluster_id):
            order.append(name)

    async def begin() -> None:
        await turns.after_others(cluster_id)
        order.append("begun")

    async with asyncio.TaskGroup() as group, turns.on(cluster_id):
        for work in (ask("first"), ask("second"), begin(), ask("third")):
            group.create_task(work)
        await asyncio.sleep(0)
        order.append("decided")
    assert order == ["decided", "first", "second", "begun", "third"]


async def test_who_waits_too_long_for_another_process_is_told_to_come_again(
    settings: Settings, database: Database
) -> None:
    hurried = settings.database.model_copy(update={"statement_timeout_s": 3.0})
    service = quiet_service(settings.model_copy(update={"database": hurried}))
    async with running(service) as app, client_of(app) as client:
        lot = Lot(client, database)
        await lot.prepare([nodes.a100x8()])
        async with database.writing() as other:
            await capacity.hold(other, lot.cluster_id)
            answer = await lot.create()
            assert_problem(answer, 503, "/problems/database-busy")
            assert int(answer.headers["Retry-After"]) > 0
        async with database.reading() as session:
            assert await session.scalar(select(func.count()).select_from(Deployment)) == 0
        assert (await lot.create()).status_code == 202


async def test_a_deployment_that_is_not_there_is_not_waited_for(client: httpx.AsyncClient) -> None:
    unknown = UUID(int=7)
    for method, path in (("POST", f"/deployments/{unknown}/scale"), ("POST", f"/operations/{unknown}/retry")):
        answer = await client.request(method, path, json={"replicas": 1} if "scale" in path else None)
        assert answer.status_code == 404, answer.text
