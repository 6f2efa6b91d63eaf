"""Rows and workflows brought to agree."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from budcluster.kit.clock import SystemClock
from budcluster.kit.database import Database
from budcluster.operations import outbox
from budcluster.operations.ledger import Ledger
from budcluster.operations.models import Operation, OperationStatus, StepStatus, SubjectEvent, SubjectType
from budcluster.operations.retention import Retention
from budcluster.operations.sweeper import Sweeper
from tests.operations.desk import DemoWorkflow, Desk, EngineTwin, cluster


class LaterClock(SystemClock):
    """Some time after now."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self):  # type: ignore[no-untyped-def]
        return super().now() + self._ahead


@pytest.fixture
def sweeper(database: Database, desk: Desk, engine: EngineTwin) -> Sweeper:
    return Sweeper(database, desk.operations, engine, {"demo": DemoWorkflow()})


@pytest.fixture
def later(database: Database, desk: Desk, engine: EngineTwin) -> Sweeper:
    """The same, a minute from now."""
    clock = LaterClock(timedelta(minutes=1))
    return Sweeper(database, desk.operations, engine, {"demo": DemoWorkflow()}, clock)


async def _status(desk: Desk, operation: Operation) -> OperationStatus:
    return (await desk.look(operation.id))[0].status


async def test_what_was_written_but_not_started_is_started_once(
    desk: Desk, sweeper: Sweeper, engine: EngineTwin
) -> None:
    operation = await desk.request(payload={"region": "eu-central-1"})
    await sweeper.launch()
    await sweeper.launch()
    assert engine.starts == 1
    assert engine.instances == {
        f"provision_cluster-{operation.id}": {
            "operation_id": str(operation.id),
            "subject_id": str(operation.subject_id),
            "attempt": 1,
        }
    }


async def test_a_start_that_failed_is_tried_again(desk: Desk, sweeper: Sweeper, engine: EngineTwin) -> None:
    await desk.request()
    engine.is_down = True
    with pytest.raises(ExceptionGroup):
        await sweeper.launch()
    engine.is_down = False
    await sweeper.launch()
    assert engine.starts == 1


async def test_a_waiting_delete_starts_when_the_subject_is_free(
    desk: Desk, sweeper: Sweeper, engine: EngineTwin
) -> None:
    subject = cluster()
    running = await desk.request(subject)
    delete = await desk.request(subject, kind="delete_cluster", supersedes=True)
    await sweeper.launch()
    assert list(engine.instances) == [running.instance_id]
    await desk.finish(running.id, OperationStatus.CANCELLED)
    await sweeper.launch()
    assert list(engine.instances) == [running.instance_id, delete.instance_id]


async def test_an_operation_whose_workflow_vanished_fails_and_can_be_retried(
    desk: Desk, sweeper: Sweeper, later: Sweeper, engine: EngineTwin
) -> None:
    operation = await desk.request()
    await sweeper.launch()
    await desk.mark(operation.id, "apply_terraform", StepStatus.RUNNING)
    engine.instances.clear()
    assert await sweeper.reconcile() == "0 lost"
    assert await later.reconcile() == "1 lost"
    failed, steps = await desk.look(operation.id)
    assert failed.error is not None
    assert (failed.status, failed.error["type"], failed.error["step"]) == (
        OperationStatus.FAILED,
        "workflow-lost",
        "apply_terraform",
    )
    assert steps["apply_terraform"].status is StepStatus.FAILED
    await desk.retry(operation.id)
    await sweeper.launch()
    assert list(engine.instances) == [f"provision_cluster-{operation.id}-2"]


async def test_an_operation_whose_workflow_ended_without_a_word_fails(
    desk: Desk, sweeper: Sweeper, later: Sweeper, engine: EngineTwin
) -> None:
    operation = await desk.request()
    await sweeper.launch()
    engine.ended.add(operation.instance_id)
    await later.reconcile()
    assert await _status(desk, operation) is OperationStatus.FAILED


async def test_living_ones_are_left_alone(desk: Desk, sweeper: Sweeper, later: Sweeper) -> None:
    operation = await desk.request()
    await sweeper.launch()
    assert await later.reconcile() == "0 lost"
    assert await _status(desk, operation) is OperationStatus.PENDING


async def test_a_workflow_that_only_a_newer_version_knows_is_left_to_that(
    database: Database, desk: Desk, engine: EngineTwin
) -> None:
    await desk.request()
    await Sweeper(database, desk.operations, engine, {}).launch()
    assert engine.starts == 0


async def test_old_operations_and_their_histories_go_and_young_ones_stay(
    desk: Desk, database: Database, sweeper: Sweeper, engine: EngineTwin
) -> None:
    old, young, running = [await desk.request() for _ in range(3)]
    await sweeper.launch()
    await desk.finish(old.id)
    await desk.finish(young.id)
    async with database.writing() as session:
        (await Ledger.open(session, old.id)).operation.finished_at = SystemClock().now() - timedelta(days=91)
    assert await Retention(database, engine, timedelta(days=90)).purge() == "1 removed"
    assert set(engine.instances) == {young.instance_id, running.instance_id}
    assert await _status(desk, young) is OperationStatus.SUCCEEDED


async def test_old_events_of_clusters_go_and_young_ones_stay(database: Database, engine: EngineTwin) -> None:
    async with database.writing() as session:
        for days in (91, 89):
            facts = {"days": days}
            await outbox.tell(session, SubjectType.CLUSTER, uuid4(), name="lab", change="health_changed", facts=facts)
            mine = update(SubjectEvent).where(SubjectEvent.data["days"].as_integer() == days)
            await session.execute(mine.values(created_at=SystemClock().now() - timedelta(days=days)))
    await Retention(database, engine, timedelta(days=90)).purge()
    async with database.reading() as session:
        assert [event.data["days"] for event in await session.scalars(select(SubjectEvent))] == [89]
