"""Makes rows and workflows agree: starts what was requested, and ends what has no living workflow any more."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import select, update

from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import Database
from budcluster.operations.causes import WORKFLOW_LOST
from budcluster.operations.contracts import Engine, Workflow
from budcluster.operations.errors import StaleAttempt
from budcluster.operations.ledger import Ledger
from budcluster.operations.models import Claim, Operation, OperationStatus
from budcluster.operations.services import Operations, launch_payload

log = structlog.get_logger(__name__)

_BATCH: Final = 200
_AT_ONCE: Final = 8
_GRACE: Final = timedelta(seconds=30)
"""A workflow that was just handed over may not be visible yet; one that just ended may still be writing its end."""
_UNFINISHED: Final = (OperationStatus.PENDING, OperationStatus.RUNNING, OperationStatus.CANCELLING)


class Sweeper:
    """Two periodic jobs. Both may run at any time, on any replica, and twice."""

    def __init__(
        self,
        database: Database,
        operations: Operations,
        engine: Engine,
        workflows: Mapping[str, Workflow],
        clock: Clock | None = None,
    ) -> None:
        """`workflows` by name: all that operations may name."""
        self._database = database
        self._operations = operations
        self._engine = engine
        self._workflows = workflows
        self._clock = clock or SystemClock()

    async def launch(self) -> str:
        """Hand every workflow to the engine that was requested and not yet handed over. Says how many."""
        wanted = select(Operation).where(
            Operation.status.in_((OperationStatus.PENDING, OperationStatus.CANCELLING)),
            Operation.launched_at.is_(None),
            Operation.claim != Claim.WAITING,
        )
        async with self._database.reading() as session:
            operations = (await session.scalars(wanted.order_by(Operation.created_at).limit(_BATCH))).all()
        turns = asyncio.Semaphore(_AT_ONCE)
        results = await asyncio.gather(
            *(self._launch(operation, turns) for operation in operations), return_exceptions=True
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            raise ExceptionGroup("some workflows could not be started", [e for e in errors if isinstance(e, Exception)])
        return f"{len(operations)} started"

    async def reconcile(self) -> str:
        """End operations whose workflow has ended, was terminated or vanished. Says how many."""
        started_before = self._clock.now() - _GRACE
        at_work = select(Operation).where(Operation.status.in_(_UNFINISHED), Operation.launched_at < started_before)
        lost = 0
        last: UUID | None = None
        while True:
            page = at_work if last is None else at_work.where(Operation.id > last)
            async with self._database.reading() as session:
                operations = (await session.scalars(page.order_by(Operation.id).limit(_BATCH))).all()
            if not operations:
                return f"{lost} lost"
            for operation in operations:
                if not await self._engine.is_alive(operation.instance_id):
                    lost += await self._give_up(operation)
            last = operations[-1].id

    async def _launch(self, operation: Operation, turns: asyncio.Semaphore) -> None:
        async with turns:
            reference = self._workflows.get(operation.workflow)
            if reference is None:
                # A newer replica asked for it during an update; that one starts it.
                log.warning("operation.unknown_workflow", workflow=operation.workflow)
                return
            payload = reference.takes.model_validate(launch_payload(operation))
            await self._engine.start(reference, payload, instance_id=operation.instance_id)
        async with self._database.writing() as session:
            await session.execute(
                update(Operation)
                .where(Operation.id == operation.id, Operation.attempt == operation.attempt)
                .values(launched_at=self._clock.now())
            )
        log.info("operation.launched", operation_id=str(operation.id), instance_id=operation.instance_id)

    async def _give_up(self, operation: Operation) -> bool:
        try:
            async with self._database.writing() as session:
                ledger = await Ledger.open(session, operation.id, attempt=operation.attempt)
                cause = replace(WORKFLOW_LOST, step=ledger.operation.current_step)
                if cause.step is not None:
                    await ledger.change_step(cause.step, error=cause.facts(), detail=cause.detail)
                await self._operations.finish(ledger, session, OperationStatus.FAILED, error=cause)
        except StaleAttempt:
            return False
        log.warning("operation.workflow_lost", operation_id=str(operation.id), instance_id=operation.instance_id)
        return True
