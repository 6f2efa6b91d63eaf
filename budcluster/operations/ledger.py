"""The one door through which operations change: a row under lock, its steps, and an event for every change.

The lock on the operation's row orders its events: number n + 1 is given out only after number n was committed.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy import Text, cast, delete, func, insert, select, text, update

from budcluster.kit.database import WriteSession
from budcluster.operations.errors import OperationNotFound, StaleAttempt
from budcluster.operations.estimates import overall_percent
from budcluster.operations.models import (
    FINISHED,
    Claim,
    EventType,
    Operation,
    OperationEvent,
    OperationLogLine,
    OperationStatus,
    OperationStep,
    StepStatus,
)

CHANGED: Final = "operation_changed"
"""Notification channel: an operation's id, at every commit that changed it."""
PENDING: Final = "operation_pending"
"""Notification channel: an operation's id, when its workflow waits to be started."""
HALTED: Final = "operation_halted"
"""Notification channel: an operation's id, when whoever works on it may have to stop."""
CHANNELS: Final = (CHANGED, PENDING, HALTED)

MAX_LOG_LINES: Final = 5_000
MAX_LOG_BYTES: Final = 2 * 1024 * 1024
MAX_LINE_CHARACTERS: Final = 2_000

_OPEN_STEPS: Final = frozenset({StepStatus.PENDING, StepStatus.RUNNING})


class Ledger:
    """One operation under lock, in one transaction. Make it with `open`."""

    def __init__(self, session: WriteSession, operation: Operation, steps: Sequence[OperationStep]) -> None:
        self._session = session
        self.operation = operation
        self.steps = {step.name: step for step in steps}

    @classmethod
    async def open(cls, session: WriteSession, operation_id: UUID, *, attempt: int | None = None) -> Self:
        """Lock and read. With `attempt`, only while that attempt is at work.

        Raises OperationNotFound, and StaleAttempt when the attempt has ended or was replaced.
        """
        found = select(Operation).where(Operation.id == operation_id).with_for_update()
        operation = (await session.execute(found, execution_options={"populate_existing": True})).scalar_one_or_none()
        if operation is None:
            raise OperationNotFound(operation_id)
        if attempt is not None and (operation.attempt != attempt or operation.status in FINISHED):
            raise StaleAttempt(f"attempt {attempt} of operation {operation_id} has ended")
        ordered = (
            select(OperationStep).where(OperationStep.operation_id == operation_id).order_by(OperationStep.position)
        )
        steps = await session.scalars(ordered, execution_options={"populate_existing": True})
        return cls(session, operation, steps.all())

    async def change(self, *channels: str, **values: Any) -> None:
        """Change the operation and tell about it, on these channels, too."""
        for name, value in values.items():
            setattr(self.operation, name, value)
        await self._tell(EventType.OPERATION, self._operation_facts(), *channels)

    async def change_step(self, name: str, *channels: str, **values: Any) -> OperationStep:
        """Change a step, and with it the whole's percent and present step; tell about it, on these channels, too."""
        step = self.steps[name]
        for field, value in values.items():
            setattr(step, field, value)
        self._recount()
        await self._tell(EventType.STEP, self._step_facts(step), *channels)
        return step

    async def append_log(self, lines: Sequence[tuple[str, datetime, str]]) -> None:
        """Append masked lines (step, time, text); drop the oldest ones beyond the limits."""
        if not lines:
            return
        first = self.operation.log_number + 1
        rows = [
            OperationLogLine(operation_id=self.operation.id, number=number, step=step, at=at, text=line)
            for number, (step, at, line) in enumerate(lines, first)
        ]
        self._session.add_all(rows)
        self.operation.log_number += len(rows)
        self.operation.log_bytes += sum(len(row.text.encode()) for row in rows)
        facts = [{"number": r.number, "step": r.step, "at": r.at.isoformat(), "text": r.text} for r in rows]
        await self._tell(EventType.LOG, {"first": first, "last": self.operation.log_number, "lines": facts})
        await self._bound_log()

    async def finish(self, status: OperationStatus, *, now: datetime, **values: Any) -> None:
        """End the operation, settle its open steps, free the subject and let the next one in line have it."""
        running = StepStatus.FAILED if status is OperationStatus.FAILED else StepStatus.CANCELLED
        for step in list(self.steps.values()):
            if step.status in _OPEN_STEPS and status is not OperationStatus.SUCCEEDED:
                ended = running if step.status is StepStatus.RUNNING else StepStatus.CANCELLED
                if step.status is StepStatus.RUNNING or status is OperationStatus.CANCELLED:
                    await self.change_step(step.name, status=ended, finished_at=now)
        held = self.operation.claim is Claim.HOLDING
        if status is OperationStatus.SUCCEEDED:
            values["percent"] = 100
        await self.change(HALTED, status=status, claim=Claim.NONE, finished_at=now, current_step=None, **values)
        if held:
            await self._session.flush()
            await self._pass_claim_on()

    async def _pass_claim_on(self) -> None:
        await self._session.execute(
            update(Operation)
            .where(
                Operation.subject_type == self.operation.subject_type,
                Operation.subject_id == self.operation.subject_id,
                Operation.claim == Claim.WAITING,
            )
            .values(claim=Claim.HOLDING)
            .returning(func.pg_notify(PENDING, cast(Operation.id, Text)))
            .execution_options(synchronize_session=False)
        )

    def _recount(self) -> None:
        steps = list(self.steps.values())
        self.operation.percent = max(self.operation.percent, overall_percent(steps))
        running = [step.name for step in steps if step.status is StepStatus.RUNNING]
        self.operation.current_step = running[-1] if running else None

    async def _tell(self, kind: EventType, data: dict[str, Any], *channels: str) -> None:
        self.operation.sequence += 1
        # One by one: the outbox relies on ids that rise with the sequence.
        await self._session.flush()
        operation_id = self.operation.id
        told = insert(OperationEvent).values(
            operation_id=operation_id, sequence=self.operation.sequence, type=kind, data=data
        )
        rung = [func.pg_notify(channel, str(operation_id)) for channel in (CHANGED, *channels)]
        await self._session.execute(told.returning(*rung))

    async def _bound_log(self) -> None:
        kept = min(self.operation.log_number, MAX_LOG_LINES)
        if self.operation.log_number <= MAX_LOG_LINES and self.operation.log_bytes <= MAX_LOG_BYTES:
            return
        await self._session.flush()
        dropped_to = await self._session.scalar(
            _LAST_DROPPED, {"id": self.operation.id, "lines": kept, "bytes": MAX_LOG_BYTES}
        )
        if dropped_to is None:
            return
        gone = await self._session.scalars(
            delete(OperationLogLine)
            .where(OperationLogLine.operation_id == self.operation.id, OperationLogLine.number <= dropped_to)
            .returning(OperationLogLine.text)
            .execution_options(synchronize_session=False)
        )
        self.operation.log_bytes -= sum(len(line.encode()) for line in gone)
        await self._session.execute(_DROP_LOG_EVENTS, {"id": self.operation.id, "number": dropped_to})

    def _operation_facts(self) -> dict[str, Any]:
        operation = self.operation
        return {
            "id": str(operation.id),
            "kind": operation.kind,
            "subject": {
                "type": operation.subject_type.value,
                "id": str(operation.subject_id),
                "name": operation.subject_name,
            },
            "status": operation.status.value,
            "attempt": operation.attempt,
            "percent": operation.percent,
            "current_step": operation.current_step,
            "error": operation.error,
            "result": operation.result,
        }

    def _step_facts(self, step: OperationStep) -> dict[str, Any]:
        return {
            "name": step.name,
            "title": step.title,
            "position": step.position,
            "status": step.status.value,
            "percent": step.percent,
            "detail": step.detail,
            "error": step.error,
            "started_at": step.started_at.isoformat() if step.started_at else None,
            "finished_at": step.finished_at.isoformat() if step.finished_at else None,
            "operation_percent": self.operation.percent,
        }


_LAST_DROPPED: Final = text(
    """
    select max(number) from (
        select number,
               row_number() over (order by number desc) as place,
               sum(octet_length(text)) over (order by number desc) as bytes
        from operation_log_lines where operation_id = :id
    ) as line
    where place > :lines or bytes > :bytes
    """
)
_DROP_LOG_EVENTS: Final = text(
    "delete from operation_events where operation_id = :id and type = 'log' and cast(data ->> 'last' as int) <= :number"
)
