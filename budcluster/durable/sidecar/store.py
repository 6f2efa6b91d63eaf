"""Everything durable, in PostgreSQL. Thin: each method is one statement or one short transaction.

Some writes are relaxed: they do not wait for the disk. They survive the death of this process like all others; only
when PostgreSQL or the machine itself crashes within a fraction of a second can they be gone, and then together with
all that was written after them, so that the step before simply happens again. What leaves the database (an activity
that starts, an answer that something was accepted) always waits for the disk, and for all that was written before it.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import asyncpg

from budcluster.durable.sidecar import events, rerun, sql
from budcluster.durable.sidecar.conclusion import Outcome
from budcluster.durable.sidecar.instances import Instance, NewInstance, Parent, Waiting, child_failed
from budcluster.durable.sidecar.protos import pb

Result = TypeVar("Result")

_POOL_SIZE: Final = 6  # of each of the two pools
_COMMAND_TIMEOUT_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 1.0

TEMPORARY: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg 0.32 raises where a connection is cut while it sends
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""Errors that pass: the server is away, restarts, fails over, is out of room, or chose us as a deadlock's victim."""


class StoreAway(ConnectionError):
    """PostgreSQL did not answer for as long as the caller was ready to wait."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A turn that this process may run, until it commits or gives the token back."""

    token: str
    instance: Instance
    inbox: list[Waiting]


@dataclass(frozen=True, slots=True)
class TaskLease:
    """An activity that this process may have run."""

    id: int
    token: str
    instance_id: str
    execution_id: str
    task_id: int
    event: pb.HistoryEvent
    deliveries: int


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of an activity's result: the turn it wakes, where that could be leased at once."""

    instance_id: str
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Committed:
    """A turn that is written. `task_ids` are the rows of the outcome's tasks, in their order."""

    task_ids: list[int]
    duplicates: int
    """Children that were refused because an active instance has their id."""


async def _keep_as_is(_connection: object) -> None:
    """No reset query when a connection goes back: it would cost a round trip, and no statement here leaves state."""


class Store:
    """All reads and writes of the embedded sidecar. Safe for concurrent use on one event loop."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._relaxed: asyncpg.Pool[asyncpg.Record] | None = None
        self.interruptions = 0
        """How often a statement had to be repeated; then it is not known which of them took effect."""

    async def open(self) -> None:
        """Make the pools; they connect when first used, so a server that is away does no harm."""
        self._pool = await self._make_pool({})
        self._relaxed = await self._make_pool({"synchronous_commit": "off"})

    async def _make_pool(self, settings: dict[str, str]) -> "asyncpg.Pool[asyncpg.Record]":
        return await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=_POOL_SIZE,
            reset=_keep_as_is,
            command_timeout=_COMMAND_TIMEOUT_S,
            server_settings={"application_name": "budcluster-workflows", **settings},
        )

    async def close(self) -> None:
        """Close all connections; those in use are given two seconds."""
        for pool in (self._pool, self._relaxed):
            if pool is None:
                continue
            try:
                async with asyncio.timeout(2):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    async def patiently(self, work: Callable[[], Awaitable[Result]], *, patience_s: float | None = None) -> Result:
        """Repeat `work` while PostgreSQL is away, for ever or for `patience_s`; then raise StoreAway."""
        loop = asyncio.get_running_loop()
        deadline = None if patience_s is None else loop.time() + patience_s
        pause = 0.05
        while True:
            try:
                return await work()
            except TEMPORARY as error:
                self.interruptions += 1
                if deadline is not None and loop.time() + pause > deadline:
                    raise StoreAway("The database of the workflows does not answer; try again.") from error
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, guards nothing
            pause = min(pause * 2, _LONGEST_PAUSE_S)

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
        started = new.started.executionStarted
        row = await (connection or self._pool_or_raise(relaxed=relaxed)).fetchrow(
            sql.CREATE,
            new.instance_id,
            new.execution_id,
            started.name,
            started.version.value if started.HasField("version") else None,
            started.input.value if started.HasField("input") else None,
            *_parent_columns(new.parent),
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
        instance = Instance(new.instance_id, new.execution_id, started.name, parent=new.parent)
        return Lease(token, instance, [Waiting(row["message"], new.execution_id, new.started)])

    async def lease_turns(self, owner: int, tokens: Sequence[str]) -> list[Lease]:
        """Lease up to one due turn per token."""
        rows = await self._pool_or_raise().fetch(sql.LEASE_TURNS, owner, list(tokens))
        return [_lease(row) for row in rows]

    async def lease_tasks(self, owner: int, tokens: Sequence[str]) -> list[TaskLease]:
        """Lease up to one free activity per token, oldest first."""
        rows = await self._pool_or_raise().fetch(sql.LEASE_TASKS, owner, list(tokens))
        return [
            TaskLease(
                row["id"],
                row["token"],
                row["instance_id"],
                row["execution_id"],
                row["task_id"],
                pb.HistoryEvent.FromString(row["event"]),
                row["deliveries"],
            )
            for row in rows
        ]

    async def next_due(self) -> timedelta | None:
        """How long until the next timer; None when there is none."""
        due: timedelta | None = await self._pool_or_raise().fetchval(sql.NEXT_DUE)
        return due

    async def finish_task(
        self, task: TaskLease, event: pb.HistoryEvent, *, owner: int, turn_token: str | None
    ) -> Finished | None:
        """Hand an activity's result to its instance, exactly once; None when the lease was lost meanwhile."""
        serialized = event.SerializeToString()
        row = await self._pool_or_raise(relaxed=True).fetchrow(
            sql.FINISH_TASK, task.token, owner, task.id, serialized, turn_token
        )
        if row is None:
            return None
        if row["token"] is None:
            return Finished(row["finished"], None)
        lease = _lease(row)
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
        arguments = _commit_arguments(lease, outcome, owner, task_tokens)
        if not outcome.children and outcome.next_generation is None:
            row = await self._pool_or_raise(relaxed=relaxed).fetchrow(sql.COMMIT_TURN, *arguments)
            return None if row is None else Committed(row["task_ids"], 0)
        async with self._pool_or_raise().acquire() as connection, connection.transaction():
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
        started = plan.started.executionStarted
        new = plan.instance
        async with self._pool_or_raise().acquire() as connection, connection.transaction():
            made = await connection.fetchval(
                sql.RERUN,
                new.instance_id,
                new.execution_id,
                new.name,
                started.version.value if started.HasField("version") else None,
                started.input.value if started.HasField("input") else None,
                [event.SerializeToString() for event in plan.history],
                [task.task_id for task in plan.tasks],
                [task.event.SerializeToString() for task in plan.tasks],
                [timer.event.SerializeToString() for timer in plan.timers],
                [timer.visible_at for timer in plan.timers],
            )
            if not made:
                raise InstanceExists(new.instance_id)
            for child in plan.children:
                await self._create_child(connection, child)

    async def post(self, instance_id: str, event: pb.HistoryEvent, *, at_once: bool = False) -> bool | None:
        """Put a message into an inbox. True: accepted, False: the instance has ended, None: there is none.

        `at_once` reaches instances that are scheduled for later or stalled.
        """
        row = await self._pool_or_raise().fetchrow(sql.POST, instance_id, event.SerializeToString(), at_once)
        return None if row is None else not row["is_final"]

    async def read(self, instance_id: str) -> dict[str, Any] | None:
        """The instance's row."""
        row = await self._pool_or_raise().fetchrow(sql.READ, instance_id)
        return None if row is None else dict(row)

    async def make_durable(self, instance_id: str) -> None:
        """Return when all that was written so far is on disk."""
        await self._pool_or_raise().execute(sql.TOUCH, instance_id)

    async def history(self, instance_id: str) -> list[pb.HistoryEvent]:
        """All committed events of the living generation, oldest first."""
        rows = await self._pool_or_raise().fetch(sql.HISTORY, instance_id)
        return [pb.HistoryEvent.FromString(event) for row in rows for event in row["events"]]

    async def list_ids(self, after: str, limit: int) -> list[str]:
        """Instance ids in order, from behind `after`."""
        return [row["instance_id"] for row in await self._pool_or_raise().fetch(sql.LIST, after, limit)]

    async def purge(self, instance_id: str, *, recursive: bool) -> int | None:
        """Forget a finished instance (and its finished children); None when it is still active, 0 when unknown."""
        family = await self._pool_or_raise().fetch(sql.FAMILY, instance_id, recursive)
        if any(not row["is_final"] for row in family if row["instance_id"] == instance_id):
            return None
        ids = [row["instance_id"] for row in family if row["is_final"]]
        count: int = await self._pool_or_raise().fetchval(sql.DELETE_FINISHED, ids)
        return count

    async def purge_older_than(self, age: timedelta, *, at_most: int = 500) -> int:
        """Forget instances that ended longer ago than `age`; returns how many."""
        ids = await self._pool_or_raise().fetchval(sql.FINISHED_BEFORE, age, at_most)
        count: int = await self._pool_or_raise().fetchval(sql.DELETE_FINISHED, ids)
        return count

    async def drop_unreadable(self) -> None:
        """Remove messages to instances that have ended."""
        await self._pool_or_raise().execute(sql.DROP_UNREADABLE)

    async def unstall(self) -> bool:
        """Let stalled instances try again; whether there were any."""
        status: str = await self._pool_or_raise().execute(sql.UNSTALL)
        return status != "UPDATE 0"

    async def release(self, owner: int, tokens: Sequence[str], *, uncounted: bool = False) -> None:
        """Give leases back; `uncounted` when the work was never at fault."""
        await self._pool_or_raise().execute(sql.RELEASE_TURNS, owner, list(tokens), int(uncounted))
        await self._pool_or_raise().execute(sql.RELEASE_TASKS, owner, list(tokens), int(uncounted))

    async def held_tokens(self, owner: int) -> list[str]:
        """Tokens of all leases that the database has for `owner`."""
        rows = await self._pool_or_raise().fetch(sql.HELD_TOKENS, owner)
        return [row["token"] for row in rows]

    async def announce(self, instance_id: str) -> None:
        """Wake the other replicas; they poll as well, so a lost call only costs time."""
        with contextlib.suppress(*TEMPORARY):
            await self._pool_or_raise().execute(sql.NOTIFY, instance_id)

    async def counts(self) -> dict[str, int]:
        """Work that waits, and how many processes share it."""
        row = await self._pool_or_raise().fetchrow(sql.COUNTS)
        return {} if row is None else dict(row)

    def _pool_or_raise(self, *, relaxed: bool = False) -> "asyncpg.Pool[asyncpg.Record]":
        pool = self._relaxed if relaxed else self._pool
        if pool is None:
            raise StoreAway("The embedded sidecar is not started.")
        return pool


class InstanceExists(ValueError):
    """An instance with this id is active."""

    def __init__(self, instance_id: str) -> None:
        # The wording of daprd 1.18.3.
        super().__init__(f"an active workflow with ID '{instance_id}' already exists")


def _parent_columns(parent: Parent | None) -> tuple[str | None, str | None, int | None]:
    if parent is None:
        return (None, None, None)
    return (parent.instance_id, parent.execution_id, parent.task_id)


def _lease(row: asyncpg.Record) -> Lease:
    parent = None
    if row["parent_id"] is not None:
        parent = Parent(row["parent_id"], row["parent_execution"], row["parent_task"])
    instance = Instance(
        row["instance_id"],
        row["execution_id"],
        row["name"],
        row["suspended"],
        row["history_events"],
        row["deliveries"],
        parent,
        row["custom_status"],
    )
    waiting = zip(row["ids"] or (), row["executions"] or (), row["events"] or (), strict=True)
    inbox = [Waiting(id_, execution, pb.HistoryEvent.FromString(event)) for id_, execution, event in waiting]
    return Lease(row["token"], instance, inbox)


def _commit_arguments(
    lease: Lease, outcome: Outcome, owner: int, task_tokens: Sequence[str | None]
) -> tuple[object, ...]:
    return (
        lease.instance.instance_id,
        lease.token,
        owner,
        outcome.status,
        outcome.suspended,
        outcome.custom_status,
        outcome.output,
        None if outcome.failure is None else outcome.failure.SerializeToString(),
        outcome.is_final,
        [event.SerializeToString() for event in outcome.history],
        outcome.consumed,
        [task.task_id for task in outcome.tasks],
        [task.event.SerializeToString() for task in outcome.tasks],
        [None if token is None else owner for token in task_tokens],
        list(task_tokens),
        [message.instance_id for message in outcome.messages],
        [message.execution_id for message in outcome.messages],
        [message.event.SerializeToString() for message in outcome.messages],
        [message.visible_at for message in outcome.messages],
        None if outcome.ends_children is None else outcome.ends_children.SerializeToString(),
    )


async def _start_generation(connection: Any, new: NewInstance, carried: list[pb.HistoryEvent]) -> None:
    started = new.started.executionStarted
    await connection.execute(
        sql.START_GENERATION,
        new.instance_id,
        new.execution_id,
        started.input.value if started.HasField("input") else None,
        [event.SerializeToString() for event in (new.started, *carried)],
    )
