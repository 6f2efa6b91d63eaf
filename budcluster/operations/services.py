"""Requesting, cancelling, retrying, ending and reading operations.

A feature asks for long work in the transaction that writes its own row:

    operation = await operations.request(
        session, kind="provision_cluster", subject=Subject(SubjectType.CLUSTER, cluster.id, cluster.name),
        steps=PROVISION_STEPS, workflow=PROVISION_CLUSTER, actor=actor.name,
    )

Nothing has to be done after the commit: a notification that PostgreSQL delivers with it wakes the sweeper, which hands
the workflow to the engine; were that lost, the sweeper finds the row a few seconds later.

A feature that keeps a row in step with its operations gives a `Follower` for its kinds: it is called in the transaction
that ends (or reopens) the operation, however it ended, so that both change together or not at all.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID, uuid4

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.orm import aliased

from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import ReadSession, WriteSession
from budcluster.operations.causes import Cause
from budcluster.operations.contracts import StepPlan, Workflow
from budcluster.operations.errors import (
    OperationBusy,
    OperationNotCancelable,
    OperationNotFound,
    OperationNotRetryable,
)
from budcluster.operations.estimates import expected_seconds
from budcluster.operations.ledger import HALTED, PENDING, Ledger
from budcluster.operations.models import (
    FINISHED,
    Claim,
    Operation,
    OperationStatus,
    OperationStep,
    StepStatus,
    SubjectType,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Subject:
    """What an operation works on."""

    type: SubjectType
    id: UUID
    name: str


class Follower(Protocol):
    """Keeps a feature's row in step with the operations of its kinds."""

    async def finished(self, session: WriteSession, operation: Operation) -> None:
        """The operation ended: its status says how, `error` why. Called in that transaction; must not wait."""

    async def reopened(self, session: WriteSession, operation: Operation) -> None:
        """The operation is retried. Called in that transaction; raise a Conflict to refuse."""


Turn = Callable[[UUID], AbstractAsyncContextManager[None]]
"""What a retry waits for, by the id of its subject, before its transaction begins: no connection waits with it."""


class Operations:
    """All that can be asked of operations. Stateless but for its followers and turns."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._followers: dict[str, Follower] = {}
        self._turns: dict[str, Turn] = {}
        self._clock = clock or SystemClock()

    def follow(self, kind: str, follower: Follower) -> None:
        """Tell `follower` about the operations of this kind; one follower a kind."""
        self._followers[kind] = follower

    def queue(self, kind: str, turn: Turn) -> None:
        """Let retries of this kind come one after another, as `turn` says."""
        self._turns[kind] = turn

    async def request(
        self,
        session: WriteSession,
        *,
        kind: str,
        subject: Subject,
        steps: Sequence[StepPlan],
        workflow: Workflow,
        actor: str,
        payload: Mapping[str, Any] | None = None,
        exclusive: bool = True,
        is_new_subject: bool = False,
        supersedes: bool = False,
        cancelable: bool = True,
        retryable: bool = True,
    ) -> Operation:
        """Write down that long work is wanted. It starts once the session is committed.

        An `exclusive` one holds its subject: raises OperationBusy while another one does. One that `supersedes`
        (DELETE) cancels the holder where that is possible, waits for its end and then runs; asked for again meanwhile,
        it is given back, and flags of the new payload that are true become true in its own. `payload` carries ids and
        small facts for the workflow, beside those of OperationPayload. A subject that this very transaction makes
        (`is_new_subject`) is known to nobody else, so nobody is waited for.
        """
        claim = Claim.HOLDING if exclusive and is_new_subject else Claim.NONE
        created_at = self._clock.now()
        if exclusive and not is_new_subject:
            holders = await self._lock_subject(session, subject)
            same = next((held for held in holders if supersedes and held.kind == kind), None)
            if same is not None:
                raised = {name: True for name, value in (payload or {}).items() if value is True}
                same.payload = {**same.payload, **raised}
                return same
            claim = await self._claim(session, holders, subject, supersedes=supersedes)
            created_at = await self._after_all(session, subject, created_at)
        operation = Operation(
            id=uuid4(), kind=kind, subject_type=subject.type, subject_id=subject.id, subject_name=subject.name,
            status=OperationStatus.PENDING, claim=claim, exclusive=exclusive, workflow=workflow.name, attempt=1,
            payload=dict(payload or {}), cancelable=cancelable, retryable=retryable, percent=0, actor=actor, sequence=0,
            log_number=0, log_bytes=0, created_at=created_at,
        )  # fmt: skip
        workflow.takes.model_validate(launch_payload(operation))
        learned = await expected_seconds(session, kind, [step.name for step in steps])
        rows = [
            OperationStep(
                operation_id=operation.id, name=step.name, kind=kind, title=step.title, position=position,
                weight=step.weight, status=StepStatus.PENDING, percent=0, expected_seconds=learned.get(step.name),
            )
            for position, step in enumerate(steps)
        ]  # fmt: skip
        session.add_all([operation, *rows])
        ledger = Ledger(session, operation, rows)
        await ledger.change(*(() if claim is Claim.WAITING else (PENDING,)))
        log.info("operation.requested", operation_id=str(operation.id), kind=kind, claim=claim.value)
        return operation

    async def cancel(self, session: WriteSession, operation_id: UUID) -> Operation:
        """Ask for its end: what runs is stopped, what was made is undone. Repeating it changes nothing.

        Raises OperationNotFound and OperationNotCancelable.
        """
        ledger = await Ledger.open(session, operation_id)
        operation = ledger.operation
        if operation.status in {OperationStatus.CANCELLING, OperationStatus.CANCELLED}:
            return operation
        if operation.status in FINISHED:
            raise OperationNotCancelable(
                f"The operation has ended already: {operation.status}. There is nothing to cancel."
            )
        if not operation.cancelable:
            raise OperationNotCancelable(f"{operation.kind} always runs to its end; wait for it.")
        await self._ask_to_end(ledger)
        return operation

    async def turn(self, session: ReadSession, operation_id: UUID) -> AbstractAsyncContextManager[None]:
        """What a retry is to hold before its session is used, until after the commit."""
        operation = await session.get(Operation, operation_id)
        turn = self._turns.get(operation.kind) if operation else None
        return turn(operation.subject_id) if operation and turn else nullcontext()

    async def retry(self, session: WriteSession, operation_id: UUID) -> Operation:
        """Run a failed or cancelled one again from where it failed: steps that succeeded and were not undone are kept.

        Of those that hold their subject only the newest: an older one knows nothing of what was done since.
        Raises OperationNotFound, OperationNotRetryable, OperationBusy, and what the kind's follower refuses with.
        """
        known = await session.get(Operation, operation_id)
        if known is None:
            raise OperationNotFound(operation_id)
        subject = Subject(known.subject_type, known.subject_id, known.subject_name)
        # The subject before the row, as a new request does: locks taken in one order never wait in a ring.
        holders = await self._lock_subject(session, subject)
        ledger = await Ledger.open(session, operation_id)
        operation = ledger.operation
        if operation.status not in {OperationStatus.FAILED, OperationStatus.CANCELLED}:
            raise OperationNotRetryable(
                f"Only a failed or cancelled operation can be retried; it is {operation.status}."
            )
        if not operation.retryable:
            raise OperationNotRetryable(f"{operation.kind} cannot be retried; make a new request instead.")
        claim = Claim.NONE
        if operation.exclusive:
            claim = await self._claim(session, holders, subject, supersedes=False)
            if newer := await self._newer(session, operation):
                raise OperationNotRetryable(
                    f"{newer.kind} was at work on {subject.name} since: /operations/{newer.id}. Make a new request."
                )
        if follower := self._followers.get(operation.kind):
            await follower.reopened(session, operation)
        operation.percent = 0
        for step in [step for step in ledger.steps.values() if step.status is not StepStatus.SUCCEEDED]:
            await ledger.change_step(step.name, **_UNTOUCHED)
        await ledger.change(
            PENDING, status=OperationStatus.PENDING, claim=claim, attempt=operation.attempt + 1, launched_at=None,
            error=None, result=None, cancel_requested_at=None, started_at=None, finished_at=None,
        )  # fmt: skip
        log.info("operation.retried", operation_id=str(operation.id), attempt=operation.attempt)
        return operation

    async def finish(
        self,
        ledger: Ledger,
        session: WriteSession,
        status: OperationStatus,
        *,
        error: Cause | None = None,
        **values: Any,
    ) -> None:
        """End an operation in its present transaction: subject freed, follower told, next in line woken."""
        facts = None if error is None else error.facts()
        await ledger.finish(status, now=self._clock.now(), error=facts, **values)
        if follower := self._followers.get(ledger.operation.kind):
            await follower.finished(session, ledger.operation)
        log.info(
            "operation.finished",
            operation_id=str(ledger.operation.id),
            kind=ledger.operation.kind,
            status=status.value,
            cause=None if error is None else error.type,
        )

    async def get(self, session: ReadSession, operation_id: UUID) -> tuple[Operation, Sequence[OperationStep]]:
        """An operation and its steps in order. Raises OperationNotFound."""
        operation = await session.get(Operation, operation_id)
        if operation is None:
            raise OperationNotFound(operation_id)
        return operation, (await self.steps(session, [operation_id]))[operation_id]

    async def steps(self, session: ReadSession, ids: Sequence[UUID]) -> dict[UUID, list[OperationStep]]:
        """The steps of several operations, in order."""
        found: dict[UUID, list[OperationStep]] = {operation_id: [] for operation_id in ids}
        rows = select(OperationStep).where(OperationStep.operation_id.in_(ids)).order_by(OperationStep.position)
        for step in await session.scalars(rows):
            found[step.operation_id].append(step)
        return found

    async def overtaken(self, session: ReadSession, ids: Sequence[UUID]) -> set[UUID]:
        """Those of them that a retry refuses, because work that held their subject was asked for since."""
        newer = aliased(Operation)
        since = select(newer.id).where(
            newer.subject_type == Operation.subject_type,
            newer.subject_id == Operation.subject_id,
            newer.exclusive,
            newer.created_at > Operation.created_at,
        )
        found = select(Operation.id).where(Operation.id.in_(ids), Operation.exclusive, since.exists())
        return set(await session.scalars(found))

    async def _lock_subject(self, session: WriteSession, subject: Subject) -> Sequence[Operation]:
        """One request at a time for a subject. Gives those that hold it or wait for it, holder first."""
        key = f"operations:{subject.type}:{subject.id}"
        await session.execute(text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})
        found = select(Operation).where(
            Operation.subject_type == subject.type, Operation.subject_id == subject.id, Operation.claim != Claim.NONE
        )
        return (await session.scalars(found.order_by(Operation.claim))).all()

    async def _after_all(self, session: WriteSession, subject: Subject, now: datetime) -> datetime:
        """The time of a request for a locked subject: later than those before, which other clocks may have dated."""
        found = select(func.max(Operation.created_at)).where(
            Operation.subject_type == subject.type, Operation.subject_id == subject.id, Operation.exclusive
        )
        latest = await session.scalar(found)
        return now if latest is None else max(now, latest + timedelta(microseconds=1))

    async def _newer(self, session: WriteSession, operation: Operation) -> Operation | None:
        found = select(Operation).where(
            Operation.subject_type == operation.subject_type,
            Operation.subject_id == operation.subject_id,
            Operation.exclusive,
            Operation.created_at > operation.created_at,
        )
        return (await session.scalars(found.order_by(Operation.created_at.desc()).limit(1))).one_or_none()

    async def _claim(
        self, session: WriteSession, holders: Sequence[Operation], subject: Subject, *, supersedes: bool
    ) -> Claim:
        if not holders:
            return Claim.HOLDING
        last = holders[-1]
        if not supersedes or last.claim is Claim.WAITING:
            raise OperationBusy(subject=subject.name, operation_id=last.id, kind=last.kind)
        ledger = await Ledger.open(session, last.id)
        if ledger.operation.status in FINISHED:
            return Claim.HOLDING
        if ledger.operation.cancelable and ledger.operation.status is not OperationStatus.CANCELLING:
            await self._ask_to_end(ledger)
        return Claim.WAITING

    async def _ask_to_end(self, ledger: Ledger) -> None:
        await ledger.change(HALTED, status=OperationStatus.CANCELLING, cancel_requested_at=self._clock.now())
        log.info("operation.cancel_requested", operation_id=str(ledger.operation.id))


_UNTOUCHED: Mapping[str, Any] = {
    "status": StepStatus.PENDING, "percent": 0, "detail": None, "error": None, "result": None, "started_at": None,
    "finished_at": None,
}  # fmt: skip


def launch_payload(operation: Operation) -> dict[str, Any]:
    """What the workflow of the present attempt is given."""
    identity = {
        "operation_id": str(operation.id), "subject_id": str(operation.subject_id), "attempt": operation.attempt
    }  # fmt: skip
    return {**operation.payload, **identity}
