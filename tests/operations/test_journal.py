"""What activities tell about themselves, and how a wish to cancel reaches them."""

import asyncio
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel
from sqlalchemy import select

from budcluster.durable.errors import NonRetryableError
from budcluster.kit.database import Database
from budcluster.kit.redaction import Redactor
from budcluster.operations import ledger as ledgers
from budcluster.operations.journal import Journal, StepJournal
from budcluster.operations.models import EventType, Operation, OperationEvent, OperationLogLine, StepStatus
from tests.operations.desk import Desk, eventually, payload_of


class Applied(BaseModel):
    nodes: int


class QuotaExceeded(Exception):
    next_step = "Ask the cloud for more GPUs."


async def _lines(database: Database, operation: Operation) -> list[OperationLogLine]:
    async with database.reading() as session:
        ordered = select(OperationLogLine).where(OperationLogLine.operation_id == operation.id)
        return list((await session.scalars(ordered.order_by(OperationLogLine.number))).all())


async def _journal(desk: Desk, *secrets: str) -> tuple[Operation, Journal]:
    operation = await desk.request()
    return operation, desk.journals.of(payload_of(operation), redactor=Redactor(secrets))


async def test_a_step_that_succeeded_gives_its_result_again_without_being_done_again(desk: Desk) -> None:
    operation, journal = await _journal(desk)
    done = 0

    async def act(step: StepJournal) -> Applied:
        nonlocal done
        done += 1
        return Applied(nodes=3)

    first = await journal.run("apply_terraform", act, gives=Applied)
    again = await journal.run("apply_terraform", act, gives=Applied)
    assert (first, again, done) == (Applied(nodes=3), Applied(nodes=3), 1)
    operation, steps = await desk.look(operation.id)
    assert steps["apply_terraform"].status is StepStatus.SUCCEEDED
    assert operation.percent == 75


async def test_percent_rises_while_a_step_runs_and_never_falls(desk: Desk) -> None:
    operation, journal = await _journal(desk)

    async def percent() -> int:
        return (await desk.look(operation.id))[1]["apply_terraform"].percent

    async with journal.step("apply_terraform") as step:
        step.percent(40, detail="12 of 30 resources")
        await eventually(lambda: _is(percent, 40))
        step.percent(20)
        step.percent(60)
        await eventually(lambda: _is(percent, 60))
        whole, steps = await desk.look(operation.id)
        assert (whole.percent, whole.current_step) == (45, "apply_terraform")
        assert steps["apply_terraform"].detail == "12 of 30 resources"


async def test_a_repeated_step_keeps_its_first_start(desk: Desk) -> None:
    operation, journal = await _journal(desk)
    starts = []

    async def act() -> None:
        async with journal.step("apply_terraform"):
            starts.append((await desk.look(operation.id))[1]["apply_terraform"].started_at)
            raise ConnectionError("the cloud did not answer")

    for _ in range(2):
        with pytest.raises(ConnectionError):
            await act()
    assert starts[0] == starts[1] is not None


async def test_a_failure_is_noted_with_a_type_a_sentence_and_what_to_do(desk: Desk) -> None:
    operation, journal = await _journal(desk)
    with pytest.raises(QuotaExceeded):
        async with journal.step("apply_terraform"):
            raise QuotaExceeded("The region has no GPUs left.")
    step = (await desk.look(operation.id))[1]["apply_terraform"]
    assert step.status is StepStatus.RUNNING
    assert step.error == {
        "type": "quota-exceeded",
        "detail": "The region has no GPUs left.",
        "next_step": "Ask the cloud for more GPUs.",
        "step": "apply_terraform",
    }


async def test_secrets_never_reach_a_line_a_detail_or_an_error(desk: Desk, database: Database) -> None:
    operation, journal = await _journal(desk, "correct-horse-battery")

    async def act() -> None:
        async with journal.step("apply_terraform") as step:
            step.log("using correct-horse-battery to log in")
            step.percent(10, detail="as correct-horse-battery")
            raise ConnectionError("login with correct-horse-battery refused")

    with pytest.raises(ConnectionError):
        await act()
    async with database.reading() as session:
        events = (await session.scalars(select(OperationEvent))).all()
    found = str([event.data for event in events]) + str([line.text for line in await _lines(database, operation)])
    assert "using *** to log in" in found
    assert "login with *** refused" in found
    assert "correct-horse" not in found


async def test_lines_are_kept_in_order_and_told_in_batches(desk: Desk, database: Database) -> None:
    operation, journal = await _journal(desk)
    async with journal.step("apply_terraform") as step:
        for number in range(1, 301):
            step.log(f"line {number}")
    assert [line.text for line in await _lines(database, operation)] == [f"line {n}" for n in range(1, 301)]
    async with database.reading() as session:
        told = (await session.scalars(select(OperationEvent).where(OperationEvent.type == EventType.LOG))).all()
    assert len(told) < 5
    assert sum(len(event.data["lines"]) for event in told) == 300


async def test_the_oldest_lines_go_when_there_are_too_many(
    desk: Desk, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "MAX_LOG_LINES", 50)
    operation, journal = await _journal(desk)
    for batch in range(3):
        async with journal.undoing("apply_terraform") as step:
            for number in range(40):
                step.log(f"{batch}-{number}")
    numbers = [line.number for line in await _lines(database, operation)]
    assert numbers == list(range(71, 121))
    operation, _ = await desk.look(operation.id)
    assert operation.log_bytes == sum(len(line.text) for line in await _lines(database, operation))


async def test_bytes_of_lines_are_bounded_too(desk: Desk, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MAX_LOG_BYTES", 5_000)
    operation, journal = await _journal(desk)
    async with journal.step("apply_terraform") as step:
        for _ in range(10):
            step.log("ä" * 5_000)
    kept = await _lines(database, operation)
    assert [line.number for line in kept] == [10]
    assert len(kept[0].text) == ledgers.MAX_LINE_CHARACTERS


async def test_cancel_stops_the_act_and_waits_for_its_end(desk: Desk) -> None:
    operation, journal = await _journal(desk)
    at_work, cleaned_up = asyncio.Event(), asyncio.Event()

    async def act(step: StepJournal) -> Applied:
        try:
            at_work.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up.set()
        raise AssertionError

    running = asyncio.create_task(journal.run("apply_terraform", act, gives=Applied))
    await at_work.wait()
    await desk.cancel(operation.id)
    with pytest.raises(NonRetryableError, match="cancelled"):
        await running
    assert cleaned_up.is_set()


async def test_an_act_that_finishes_in_spite_of_cancel_counts(desk: Desk) -> None:
    operation, journal = await _journal(desk)
    at_work = asyncio.Event()

    async def act(step: StepJournal) -> Applied:
        at_work.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Applied(nodes=1)
        raise AssertionError

    running = asyncio.create_task(journal.run("apply_terraform", act, gives=Applied))
    await at_work.wait()
    await desk.cancel(operation.id)
    assert await running == Applied(nodes=1)


async def test_who_takes_a_step_up_stops_the_one_before_and_both_get_one_result(desk: Desk) -> None:
    operation, journal = await _journal(desk)
    at_work, was_stopped = asyncio.Event(), asyncio.Event()

    async def frozen(step: StepJournal) -> Applied:
        try:
            at_work.set()
            await asyncio.Event().wait()
        finally:
            step.log("a line of the one before")
            was_stopped.set()
        raise AssertionError

    async def fresh(step: StepJournal) -> Applied:
        await was_stopped.wait()
        return Applied(nodes=7)

    before = asyncio.create_task(journal.run("apply_terraform", frozen, gives=Applied))
    await at_work.wait()
    after = desk.journals.of(payload_of(operation))
    assert await after.run("apply_terraform", fresh, gives=Applied) == Applied(nodes=7)
    assert await before == Applied(nodes=7)
    assert (await desk.look(operation.id))[0].log_number == 0


async def test_the_one_before_writes_nothing_any_more(desk: Desk, database: Database) -> None:
    operation, journal = await _journal(desk)

    async def take_turns() -> None:
        async with journal.step("apply_terraform") as before:
            async with desk.journals.of(payload_of(operation)).step("apply_terraform") as after:
                before.log("stale")
                after.log("fresh")
            before.percent(90)

    with pytest.raises(NonRetryableError, match="elsewhere"):
        await take_turns()
    assert [line.text for line in await _lines(database, operation)] == ["fresh"]
    assert (await desk.look(operation.id))[1]["apply_terraform"].status is StepStatus.SUCCEEDED


async def test_no_step_begins_once_cancel_was_asked_for(desk: Desk) -> None:
    operation, journal = await _journal(desk)
    await desk.cancel(operation.id)
    with pytest.raises(NonRetryableError, match="cancelled"):
        async with journal.step("apply_terraform"):
            raise AssertionError
    assert (await desk.look(operation.id))[1]["apply_terraform"].status is StepStatus.PENDING


async def test_an_attempt_that_was_replaced_changes_nothing(desk: Desk) -> None:
    operation, journal = await _journal(desk)
    await desk.finish(operation.id)
    with pytest.raises(NonRetryableError, match="ended"):
        await journal.skip("store_kubeconfig", "not needed")
    with pytest.raises(NonRetryableError, match="ended"):
        async with journal.step("apply_terraform"):
            raise AssertionError


async def test_a_skipped_step_counts_as_done(desk: Desk) -> None:
    operation, journal = await _journal(desk)
    await journal.skip("apply_terraform", "the cluster is there already")
    operation, steps = await desk.look(operation.id)
    assert (steps["apply_terraform"].status, operation.percent) == (StepStatus.SKIPPED, 75)


async def test_lines_and_results_survive_connections_that_break(
    desk: Desk, database: Database, database_url: str
) -> None:
    operation, journal = await _journal(desk)
    admin = await asyncpg.connect(database_url)

    async def act(step: StepJournal) -> Applied:
        for number in range(20):
            step.log(f"line {number}")
            await _break_connections(admin)
            await asyncio.sleep(0.02)
        return Applied(nodes=2)

    assert await journal.run("apply_terraform", act, gives=Applied) == Applied(nodes=2)
    await admin.close()
    assert [line.text for line in await _lines(database, operation)] == [f"line {n}" for n in range(20)]
    assert (await desk.look(operation.id))[1]["apply_terraform"].status is StepStatus.SUCCEEDED


async def _break_connections(admin: Any) -> None:
    await admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
        " and pid <> pg_backend_pid()"
    )


async def _is(read: Any, wanted: object) -> bool:
    return bool(await read() == wanted)
