"""What runs at the beginning and at the end of every operation's workflow."""

from typing import Any

import structlog

from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import Database
from budcluster.operations.causes import Cause, from_failure
from budcluster.operations.contracts import Ending, OperationPayload, Started
from budcluster.operations.errors import OperationNotFound, StaleAttempt
from budcluster.operations.ledger import Ledger
from budcluster.operations.models import OperationStatus, StepStatus
from budcluster.operations.services import Operations

log = structlog.get_logger(__name__)


class OperationActivities:
    """Each does nothing when its attempt has ended or was replaced; that is how repetitions end, too."""

    def __init__(self, database: Database, operations: Operations, clock: Clock | None = None) -> None:
        self._database = database
        self._operations = operations
        self._clock = clock or SystemClock()

    async def mark_started(self, payload: OperationPayload, _execution: Any) -> Started:
        """The workflow has begun."""
        try:
            async with self._database.writing() as session:
                ledger = await Ledger.open(session, payload.operation_id, attempt=payload.attempt)
                if ledger.operation.started_at is None:
                    pending = ledger.operation.status is OperationStatus.PENDING
                    status = OperationStatus.RUNNING if pending else ledger.operation.status
                    await ledger.change(status=status, started_at=self._clock.now())
        except (StaleAttempt, OperationNotFound):
            log.info("operation.stale_start", operation_id=str(payload.operation_id), attempt=payload.attempt)
            return Started(goes_on=False)
        return Started(goes_on=True)

    async def mark_succeeded(self, payload: OperationPayload, _execution: Any) -> None:
        """All steps are done. Those that nobody needed are shown as skipped."""
        try:
            async with self._database.writing() as session:
                ledger = await Ledger.open(session, payload.operation_id, attempt=payload.attempt)
                for step in list(ledger.steps.values()):
                    if step.status is StepStatus.PENDING:
                        await ledger.change_step(step.name, status=StepStatus.SKIPPED, finished_at=self._clock.now())
                await self._operations.finish(ledger, session, OperationStatus.SUCCEEDED)
        except (StaleAttempt, OperationNotFound):
            log.info("operation.stale_end", operation_id=str(payload.operation_id), attempt=payload.attempt)

    async def mark_failed(self, ending: Ending, _execution: Any) -> None:
        """A step failed or was cancelled, and what could be taken back was."""
        try:
            async with self._database.writing() as session:
                ledger = await Ledger.open(session, ending.operation_id, attempt=ending.attempt)
                is_cancelled = ledger.operation.cancel_requested_at is not None
                step = ledger.steps[ending.step]
                noted = Cause(**step.error) if step.error else from_failure(ending)
                cause = None if is_cancelled else noted.and_left(_titles(ledger, ending.left))
                if cause is not None and step.error is None:
                    await ledger.change_step(step.name, error=cause.facts(), detail=cause.detail[:500])
                await self._take_back(ledger, ending)
                status = OperationStatus.CANCELLED if is_cancelled else OperationStatus.FAILED
                result = {"undone": ending.undone, "left": ending.left}
                await self._operations.finish(ledger, session, status, error=cause, result=result)
        except (StaleAttempt, OperationNotFound):
            log.info("operation.stale_end", operation_id=str(ending.operation_id), attempt=ending.attempt)

    async def _take_back(self, ledger: Ledger, ending: Ending) -> None:
        """Steps from the first undone one on count as not done: what came later stood on it."""
        touched = [ledger.steps[name].position for name in (*ending.undone, *ending.left)]
        if not touched:
            return
        for step in list(ledger.steps.values()):
            if step.position >= min(touched) and step.status is StepStatus.SUCCEEDED:
                detail = "Could not be undone" if step.name in ending.left else "Undone"
                await ledger.change_step(step.name, status=StepStatus.CANCELLED, detail=detail, result=None)


def _titles(ledger: Ledger, names: list[str]) -> list[str]:
    return [ledger.steps[name].title for name in names]
