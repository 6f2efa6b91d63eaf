"""Requesting, cancelling and retrying long work; one at a time for a subject."""

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from budcluster.kit.clock import SystemClock
from budcluster.kit.database import Database, WriteSession
from budcluster.kit.errors import Conflict
from budcluster.operations.causes import Cause
from budcluster.operations.errors import OperationBusy, OperationNotCancelable, OperationNotRetryable
from budcluster.operations.models import Claim, Operation, OperationEvent, OperationStatus, StepStatus
from budcluster.operations.services import Operations
from tests.operations.desk import STEPS, DemoWorkflow, Desk, cluster


async def test_all_steps_are_known_before_anything_runs(desk: Desk) -> None:
    operation, steps = await desk.look((await desk.request()).id)
    assert operation.status is OperationStatus.PENDING
    assert [step.title for step in steps.values()] == ["Create the cluster", "Keep the credential"]
    assert {step.status for step in steps.values()} == {StepStatus.PENDING}


async def test_nothing_is_wanted_when_the_domain_transaction_rolls_back(desk: Desk, database: Database) -> None:
    async def request_and_fail() -> None:
        async with database.writing() as session:
            await desk.operations.request(
                session, kind="demo", subject=cluster(), steps=STEPS, workflow=DemoWorkflow(), actor="ada"
            )
            raise RuntimeError("the domain row could not be written")

    with pytest.raises(RuntimeError):
        await request_and_fail()
    async with database.reading() as session:
        assert (await session.scalars(select(Operation))).all() == []
        assert (await session.scalars(select(OperationEvent))).all() == []


async def test_exactly_one_wins_when_many_want_one_subject(desk: Desk) -> None:
    subject = cluster()
    outcomes = await asyncio.gather(*(desk.request(subject) for _ in range(8)), return_exceptions=True)
    won = [outcome for outcome in outcomes if isinstance(outcome, Operation)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, OperationBusy)]
    assert (len(won), len(lost)) == (1, 7)
    assert {error.extensions["operation"] for error in lost} == {f"/operations/{won[0].id}"}


async def test_work_that_is_not_exclusive_runs_beside_another(desk: Desk) -> None:
    subject = cluster()
    await desk.request(subject)
    beside = await desk.request(subject, kind="detect_hardware", exclusive=False)
    assert beside.claim is Claim.NONE


async def test_delete_cancels_the_running_one_waits_for_its_end_and_then_runs(desk: Desk) -> None:
    subject = cluster()
    running = await desk.request(subject)
    delete = await desk.request(subject, kind="delete_cluster", supersedes=True, cancelable=False)
    assert delete.claim is Claim.WAITING
    assert (await desk.look(running.id))[0].status is OperationStatus.CANCELLING

    await desk.finish(running.id, OperationStatus.CANCELLED)
    assert (await desk.look(delete.id))[0].claim is Claim.HOLDING


async def test_a_second_delete_is_the_first_one(desk: Desk) -> None:
    subject = cluster()
    await desk.request(subject)
    first = await desk.request(subject, kind="delete_cluster", supersedes=True)
    second = await desk.request(subject, kind="delete_cluster", supersedes=True)
    assert second.id == first.id


async def test_a_second_delete_with_force_makes_the_first_one_forced(desk: Desk) -> None:
    subject = cluster()
    for force in (False, True, False):
        await desk.request(subject, kind="delete_cluster", supersedes=True, payload={"force": force, "keep": "one"})
    first = await desk.request(subject, kind="delete_cluster", supersedes=True)
    assert first.payload == {"force": True, "keep": "one"}


async def test_nothing_gets_between_a_waiting_delete_and_its_turn(desk: Desk) -> None:
    subject = cluster()
    await desk.request(subject)
    delete = await desk.request(subject, kind="delete_cluster", supersedes=True)
    with pytest.raises(OperationBusy) as refused:
        await desk.request(subject, kind="install_hami")
    assert refused.value.extensions["operation_id"] == str(delete.id)


async def test_a_running_one_that_cannot_be_cancelled_is_waited_for(desk: Desk) -> None:
    subject = cluster()
    running = await desk.request(subject, cancelable=False)
    await desk.request(subject, kind="delete_cluster", supersedes=True)
    assert (await desk.look(running.id))[0].status is OperationStatus.PENDING


async def test_the_subject_is_free_when_its_operation_has_ended(desk: Desk) -> None:
    subject = cluster()
    await desk.finish((await desk.request(subject)).id)
    assert (await desk.request(subject)).claim is Claim.HOLDING


async def test_cancel_may_be_asked_for_twice_but_not_after_the_end(desk: Desk) -> None:
    operation = await desk.request()
    first = await desk.cancel(operation.id)
    second = await desk.cancel(operation.id)
    assert first.status is second.status is OperationStatus.CANCELLING
    assert first.sequence == second.sequence
    await desk.finish(operation.id)
    with pytest.raises(OperationNotCancelable, match="SUCCEEDED"):
        await desk.cancel(operation.id)


async def test_cancel_is_refused_when_the_kind_always_runs_to_its_end(desk: Desk) -> None:
    operation = await desk.request(cancelable=False)
    with pytest.raises(OperationNotCancelable):
        await desk.cancel(operation.id)


FAILURE = Cause(type="quota-exceeded", detail="No more GPUs.", next_step="Ask for quota.", step="store_kubeconfig")


async def test_retry_keeps_what_succeeded_and_begins_a_new_attempt(desk: Desk) -> None:
    operation = await desk.request()
    await desk.mark(operation.id, "apply_terraform", StepStatus.SUCCEEDED)
    await desk.mark(operation.id, "store_kubeconfig", StepStatus.RUNNING)
    await desk.finish(operation.id, OperationStatus.FAILED, error=FAILURE)
    failed, steps = await desk.look(operation.id)
    assert failed.error == FAILURE.facts()
    assert steps["store_kubeconfig"].status is StepStatus.FAILED

    retried = await desk.retry(operation.id)
    assert (retried.status, retried.attempt, retried.error) == (OperationStatus.PENDING, 2, None)
    assert retried.instance_id == f"provision_cluster-{operation.id}-2"
    _, steps = await desk.look(operation.id)
    assert steps["apply_terraform"].status is StepStatus.SUCCEEDED
    assert steps["store_kubeconfig"].status is StepStatus.PENDING


async def test_retry_is_refused_when_the_operation_did_not_fail(desk: Desk) -> None:
    operation = await desk.request()
    with pytest.raises(OperationNotRetryable, match="PENDING"):
        await desk.retry(operation.id)


async def test_retry_is_refused_when_another_operation_has_the_subject(desk: Desk) -> None:
    subject = cluster()
    failed = await desk.request(subject)
    await desk.finish(failed.id, OperationStatus.FAILED, error=FAILURE)
    await desk.request(subject)
    with pytest.raises(OperationBusy):
        await desk.retry(failed.id)


async def test_retry_is_refused_when_a_newer_operation_was_at_work_on_the_subject(desk: Desk) -> None:
    subject = cluster()
    old = await desk.request(subject)
    await desk.finish(old.id, OperationStatus.FAILED, error=FAILURE)
    new = await desk.request(subject)
    await desk.finish(new.id, OperationStatus.FAILED, error=FAILURE)
    with pytest.raises(OperationNotRetryable, match=str(new.id)):
        await desk.retry(old.id)
    assert (await desk.retry(new.id)).status is OperationStatus.PENDING


class ClockBehind(SystemClock):
    """Of a replica whose machine is some minutes late."""

    def now(self) -> datetime:
        return super().now() - timedelta(minutes=5)


async def test_what_was_asked_for_later_is_newer_whatever_the_clocks_of_the_replicas_say(desk: Desk) -> None:
    subject, late = cluster(), Desk(desk.database, Operations(ClockBehind()), desk.journals)
    old = await desk.request(subject)
    await desk.finish(old.id, OperationStatus.FAILED, error=FAILURE)
    new = await late.request(subject)
    await late.finish(new.id, OperationStatus.FAILED, error=FAILURE)
    with pytest.raises(OperationNotRetryable, match=str(new.id)):
        await desk.retry(old.id)
    assert (await desk.retry(new.id)).status is OperationStatus.PENDING


class ClusterRow:
    """A feature's row that follows its operations."""

    def __init__(self) -> None:
        self.status = "PROVISIONING"
        self.is_gone = False

    async def finished(self, session: WriteSession, operation: Operation) -> None:
        self.status = "READY" if operation.status is OperationStatus.SUCCEEDED else "ERROR"

    async def reopened(self, session: WriteSession, operation: Operation) -> None:
        if self.is_gone:
            raise Conflict("The cluster was deleted meanwhile.")
        self.status = "PROVISIONING"


async def test_the_follower_hears_of_the_end_and_of_a_retry(desk: Desk) -> None:
    row = ClusterRow()
    desk.operations.follow("provision_cluster", row)
    operation = await desk.request()
    await desk.finish(operation.id, OperationStatus.FAILED, error=FAILURE)
    assert row.status == "ERROR"
    await desk.retry(operation.id)
    assert row.status == "PROVISIONING"


async def test_a_follower_can_refuse_a_retry_and_then_nothing_has_changed(desk: Desk) -> None:
    row = ClusterRow()
    desk.operations.follow("provision_cluster", row)
    operation = await desk.request()
    await desk.finish(operation.id, OperationStatus.FAILED, error=FAILURE)
    row.is_gone = True
    with pytest.raises(Conflict):
        await desk.retry(operation.id)
    assert (await desk.look(operation.id))[0].status is OperationStatus.FAILED


async def test_events_are_numbered_without_gaps_in_the_order_of_their_ids(desk: Desk, database: Database) -> None:
    operation = await desk.request()
    names = ["apply_terraform", "store_kubeconfig"] * 10
    await asyncio.gather(*(desk.mark(operation.id, name, StepStatus.RUNNING) for name in names))
    async with database.reading() as session:
        ordered = select(OperationEvent).where(OperationEvent.operation_id == operation.id).order_by(OperationEvent.id)
        events = (await session.scalars(ordered)).all()
    assert [event.sequence for event in events] == list(range(1, 22))
