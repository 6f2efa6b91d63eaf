"""Everything durable, in PostgreSQL. Thin: each method is one statement or one short transaction."""

import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from budcluster.durable.sidecar import events, rerun, sql
from budcluster.durable.sidecar.conclusion import Outcome
from budcluster.durable.sidecar.database import TEMPORARY, Database
from budcluster.durable.sidecar.instances import Instance, NewInstance, Waiting, child_failed
from budcluster.durable.sidecar.protos import pb
from budcluster.durable.sidecar.rows import (
    Committed,
    Finished,
    Lease,
    TaskLease,
    encoded,
    input_of,
    lease_of,
    parent_columns,
    start_columns,
    task_lease_of,
    turn_columns,
)


class InstanceExists(ValueError):
    """An instance with this id is active."""

    def __init__(self, instance_id: str) -> None:
        # The wording of daprd 1.18.3.
        super().__init__(f"an active workflow with ID '{instance_id}' already exists")


class Store(Database):
    """All reads and writes of the embedded sidecar. Safe for concurrent use on one event loop."""

    async def create(
        self,
        new: NewInstance,
        *,
        scheduled_at: datetime | None = None,
        owner: int | None = None,
        token: str | None = None,
        connection: Any = None,
        relaxed: bool = False,
    ) -> Lease | None:
        """Create the instance, replacing a finished one; with `owner` and `token` its first turn is leased as well.

        Raises InstanceExists when an active instance has the id.
        """
        row = await (connection or self.pool(relaxed=relaxed)).fetchrow(
            sql.CREATE,
            *start_columns(new, new.started),
            *parent_columns(new.parent),
            scheduled_at,
            owner,
            token,
            new.started.SerializeToString(),
        )
        assert row is not None  # the statement always gives one row
        if row["message"] is None:
            if row["before"] == new.execution_id:
                return None  # An earlier try of this very call got through before its connection broke.
            raise InstanceExists(new.instance_id)
        if owner is None or token is None:
            return None
        instance = Instance(new.instance_id, new.execution_id, new.started.executionStarted.name, parent=new.parent)
        return Lease(token, instance, [Waiting(row["message"], new.execution_id, new.started)])

    async def lease_turns(self, owner: int, tokens: Sequence[str]) -> list[Lease]:
        """Lease up to one due turn per token."""
        rows = await self.pool().fetch(sql.LEASE_TURNS, owner, list(tokens))
        return [lease_of(row) for row in rows]

    async def lease_tasks(self, owner: int, tokens: Sequence[str]) -> list[TaskLease]:
        """Lease up to one free activity per token, oldest first."""
        rows = await self.pool().fetch(sql.LEASE_TASKS, owner, list(tokens))
        return [task_lease_of(row) for row in rows]

    async def next_due(self) -> timedelta | None:
        """How long until the next timer; None when there is none."""
        due: timedelta | None = await self.pool().fetchval(sql.NEXT_DUE)
        return due

    async def finish_task(
        self, task: TaskLease, event: pb.HistoryEvent, *, owner: int, turn_token: str | None
    ) -> Finished | None:
        """Hand an activity's result to its instance, exactly once; None when the lease was lost meanwhile."""
        serialized = event.SerializeToString()
        row = await self.pool(relaxed=True).fetchrow(
            sql.FINISH_TASK, task.token, owner, task.id, serialized, turn_token
        )
        if row is None:
            return None
        if row["token"] is None:
            return Finished(row["finished"], None)
        lease = lease_of(row)
        lease.inbox.append(Waiting(row["message"], task.execution_id, event))
        return Finished(row["finished"], lease)

    async def commit_turn(
        self,
        lease: Lease,
        outcome: Outcome,
        *,
        owner: int,
        task_tokens: Sequence[str | None],
        relaxed: bool,
    ) -> Committed | None:
        """Write a turn; None when the lease was lost, and then nothing was written.

        Tasks with a token are leased to `owner` at once.
        """
        arguments = turn_columns(lease, outcome, owner, task_tokens)
        if not outcome.children and outcome.next_generation is None:
            row = await self.pool(relaxed=relaxed).fetchrow(sql.COMMIT_TURN, *arguments)
            return None if row is None else Committed(row["task_ids"], 0)
        async with self.pool().acquire() as connection, connection.transaction():
            row = await connection.fetchrow(sql.COMMIT_TURN, *arguments)
            if row is None:
                return None
            duplicates = 0
            for child in outcome.children:
                duplicates += not await self._create_child(connection, child)
            if outcome.next_generation is not None:
                await _start_generation(connection, outcome.next_generation, outcome.carried)
            return Committed(row["task_ids"], duplicates)

    async def _create_child(self, connection: Any, child: NewInstance) -> bool:
        try:
            await self.create(child, connection=connection)
        except InstanceExists as error:
            parent = child.parent
            assert parent is not None
            details = events.failure("InstanceExists", str(error))
            moment = events.moment_of(child.started.timestamp)
            refusal = child_failed(moment, parent.task_id, details)
            await connection.execute(
                sql.SEND_TO_PARENT_OF_DUPLICATE,
                parent.instance_id,
                parent.execution_id,
                refusal.SerializeToString(),
            )
            return False
        return True

    async def rerun(self, plan: rerun.Rerun) -> None:
        """Create an instance that begins in the middle. Raises InstanceExists when its id is in use at all."""
        async with self.pool().acquire() as connection, connection.transaction():
            made = await connection.fetchval(
                sql.RERUN,
                *start_columns(plan.instance, plan.started),
                encoded(plan.history),
                [task.task_id for task in plan.tasks],
                encoded(task.event for task in plan.tasks),
                encoded(timer.event for timer in plan.timers),
                [timer.visible_at for timer in plan.timers],
            )
            if not made:
                raise InstanceExists(plan.instance.instance_id)
            for child in plan.children:
                await self._create_child(connection, child)

    async def post(self, instance_id: str, event: pb.HistoryEvent, *, at_once: bool = False) -> bool | None:
        """Put a message into an inbox. True: accepted, False: the instance has ended, None: there is none.

        `at_once` reaches instances that are scheduled for later or stalled.
        """
        row = await self.pool().fetchrow(sql.POST, instance_id, event.SerializeToString(), at_once)
        return None if row is None else not row["is_final"]

    async def read(self, instance_id: str) -> dict[str, Any] | None:
        """The instance's row."""
        row = await self.pool().fetchrow(sql.READ, instance_id)
        return None if row is None else dict(row)

    async def make_durable(self, instance_id: str) -> None:
        """Return when all that was written so far is on disk."""
        await self.pool().execute(sql.TOUCH, instance_id)

    async def history(self, instance_id: str) -> list[pb.HistoryEvent]:
        """All committed events of the living generation, oldest first."""
        rows = await self.pool().fetch(sql.HISTORY, instance_id)
        return [pb.HistoryEvent.FromString(event) for row in rows for event in row["events"]]

    async def list_ids(self, after: str, limit: int) -> list[str]:
        """Instance ids in order, from behind `after`."""
        return [row["instance_id"] for row in await self.pool().fetch(sql.LIST, after, limit)]

    async def purge(self, instance_id: str, *, recursive: bool) -> int | None:
        """Forget a finished instance (and its finished children); None when it is still active, 0 when unknown."""
        family = await self.pool().fetch(sql.FAMILY, instance_id, recursive)
        if any(not row["is_final"] for row in family if row["instance_id"] == instance_id):
            return None
        ids = [row["instance_id"] for row in family if row["is_final"]]
        count: int = await self.pool().fetchval(sql.DELETE_FINISHED, ids)
        return count

    async def purge_older_than(self, age: timedelta, *, at_most: int = 500) -> int:
        """Forget instances that ended longer ago than `age`; returns how many."""
        ids = await self.pool().fetchval(sql.FINISHED_BEFORE, age, at_most)
        count: int = await self.pool().fetchval(sql.DELETE_FINISHED, ids)
        return count

    async def drop_unreadable(self) -> None:
        """Remove messages to instances that have ended."""
        await self.pool().execute(sql.DROP_UNREADABLE)

    async def unstall(self) -> bool:
        """Let stalled instances try again; whether there were any."""
        status: str = await self.pool().execute(sql.UNSTALL)
        return status != "UPDATE 0"

    async def release(self, owner: int, tokens: Sequence[str], *, uncounted: bool = False) -> None:
        """Give leases back; `uncounted` when the work was never at fault."""
        await self.pool().execute(sql.RELEASE_TURNS, owner, list(tokens), int(uncounted))
        await self.pool().execute(sql.RELEASE_TASKS, owner, list(tokens), int(uncounted))

    async def held_tokens(self, owner: int) -> list[str]:
        """Tokens of all leases that the database has for `owner`."""
        rows = await self.pool().fetch(sql.HELD_TOKENS, owner)
        return [row["token"] for row in rows]

    async def announce(self, instance_id: str) -> None:
        """Wake the other replicas; they poll as well, so a lost call only costs time."""
        with contextlib.suppress(*TEMPORARY):
            await self.pool().execute(sql.NOTIFY, instance_id)

    async def counts(self) -> dict[str, int]:
        """Work that waits, and how many processes share it."""
        row = await self.pool().fetchrow(sql.COUNTS)
        return {} if row is None else dict(row)


async def _start_generation(connection: Any, new: NewInstance, carried: list[pb.HistoryEvent]) -> None:
    await connection.execute(
        sql.START_GENERATION,
        new.instance_id,
        new.execution_id,
        input_of(new.started),
        encoded((new.started, *carried)),
    )
