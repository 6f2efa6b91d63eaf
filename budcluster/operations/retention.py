"""What is kept, and for how long: finished operations with their steps, lines and events, and the other events."""

from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select

from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import Database
from budcluster.operations.contracts import Engine
from budcluster.operations.models import FINISHED, Operation, SubjectEvent

_BATCH: Final = 200


class Retention:
    """Removes what is old. A periodic job."""

    def __init__(self, database: Database, engine: Engine, keep: timedelta, clock: Clock | None = None) -> None:
        self._database = database
        self._engine = engine
        self._keep = keep
        self._clock = clock or SystemClock()

    async def purge(self) -> str:
        """Remove operations that ended before the time to keep, and their workflows' histories. Says how many.

        Events of clusters and deployments go with their time, published or not.
        """
        removed = 0
        async with self._database.writing() as session:
            await session.execute(delete(SubjectEvent).where(SubjectEvent.created_at < self._clock.now() - self._keep))
        old = select(Operation).where(
            Operation.status.in_(FINISHED), Operation.finished_at < self._clock.now() - self._keep
        )
        while True:
            async with self._database.reading() as session:
                operations = (await session.scalars(old.order_by(Operation.finished_at).limit(_BATCH))).all()
            if not operations:
                return f"{removed} removed"
            for operation in operations:
                # The history first: should this stop here, the row still says that there is something to purge.
                await self._engine.purge(operation.instance_id)
            async with self._database.writing() as session:
                found = Operation.id.in_([operation.id for operation in operations])
                # One that was retried meanwhile stays.
                await session.execute(delete(Operation).where(found, Operation.status.in_(FINISHED)))
            removed += len(operations)
