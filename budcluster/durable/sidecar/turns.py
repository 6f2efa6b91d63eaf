"""Runs turns: shows an instance's messages to a worker and writes its answer.

Orchestrators have no effects of their own, so a turn may go to the worker before the lease for it is written: the
database and the worker are busy at the same time. Its answer is used only if the lease then turns out as expected.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import asyncpg
import structlog

from budcluster.durable.sidecar import engine
from budcluster.durable.sidecar.conclusion import Outcome
from budcluster.durable.sidecar.desk import Desk, RunningTurn
from budcluster.durable.sidecar.instances import Instance, NewInstance, Past, Turn, Waiting
from budcluster.durable.sidecar.protos import STALLED, pb
from budcluster.durable.sidecar.rows import Committed, Lease, TaskLease
from budcluster.durable.sidecar.streams import Stream
from budcluster.durable.sidecar.watch import Change

log = structlog.get_logger(__name__)

_FIRST_TURN_S: Final = 0.05
"""How long the answer to a start may wait for the first turn, to go to disk with it."""


class Turns:
    """The turns of one process."""

    def __init__(self, desk: Desk, *, begin_task: Callable[[TaskLease], None]) -> None:
        """`begin_task` hands on an activity that a turn scheduled and this process has leased."""
        self._desk = desk
        self._store = desk.store
        self._begin_task = begin_task

    # -- beginning ----------------------------------------------------------------------------------------------

    async def start(self, new: NewInstance, *, scheduled_at: datetime | None) -> None:
        """Create an instance and begin its first turn. Raises InstanceExists, StoreAway."""
        desk = self._desk
        token = None if scheduled_at is not None else desk.turn_token()
        if token is None:
            await self._store.patiently(lambda: self._store.create(new, scheduled_at=scheduled_at), patience_s=10)
            if scheduled_at is not None:
                desk.note_due(scheduled_at)
            desk.nudge()
            await desk.announce(new.instance_id)
            return
        instance = Instance(new.instance_id, new.execution_id, new.started.executionStarted.name)
        expected = Lease(token, instance, [Waiting(0, new.execution_id, new.started)])
        started = asyncio.Event()
        early = self.begin_early(expected, Past(), started)
        if not await self._create(new, token, early, started):
            desk.nudge()
        await self._on_disk(new.instance_id, started)

    async def _create(self, new: NewInstance, token: str, early: RunningTurn | None, started: asyncio.Event) -> bool:
        owner = self._desk.owner()
        creation = self._store.patiently(
            lambda: self._store.create(new, owner=owner, token=token, relaxed=True), patience_s=10
        )
        try:
            lease = await self._desk.claiming([token], creation)
        except asyncpg.ForeignKeyViolationError:
            # The others gave this process up a moment ago: somebody else may take the first turn.
            self.drop(early)
            await self._store.patiently(lambda: self._store.create(new), patience_s=10)
            return False
        except BaseException:
            self.drop(early)
            raise
        if lease is None:
            self.drop(early)
            self._desk.unclaim([token])
            return False
        if early is None:
            await self.begin(lease, started)
        else:
            await self.confirm(early, lease)
        return True

    async def _on_disk(self, instance_id: str, started: asyncio.Event) -> None:
        """Return when the start is on disk: usually the first turn brings it there."""
        try:
            async with asyncio.timeout(_FIRST_TURN_S):
                await started.wait()
        except TimeoutError:
            await self._store.patiently(lambda: self._store.make_durable(instance_id), patience_s=10)

    def begin_early(self, expected: Lease, past: Past, started: asyncio.Event | None = None) -> RunningTurn | None:
        """Send a turn to a worker while its lease is being written; None where that is not possible.

        Then `confirm` or `drop` it.
        """
        if expected.instance.instance_id in self._desk.by_instance:
            return None
        turn = engine.begin(expected.instance, past, expected.inbox, datetime.now(UTC))
        is_confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        return self._send(expected, turn, started, is_confirmed)

    async def confirm(self, early: RunningTurn, lease: Lease) -> None:
        """The lease was written as expected; its last message is the one that the worker was shown."""
        early.lease = lease
        early.turn.consumed[:] = [lease.inbox[-1].id]
        early.is_dirty |= len(lease.inbox) > 1
        assert early.is_confirmed is not None
        early.is_confirmed.set_result(True)
        if lease.token not in self._desk.claimed:
            # The worker went away before there was a lease to give back.
            await self._desk.give_back([lease.token])

    def drop(self, early: RunningTurn | None) -> None:
        """There is no such lease: whatever the worker answers is not used."""
        if early is not None and early.is_confirmed is not None:
            self._desk.forget(early.lease.token)
            early.is_confirmed.set_result(False)

    async def begin(self, lease: Lease, started: asyncio.Event | None = None) -> None:
        """Run a leased turn."""
        desk, instance = self._desk, lease.instance
        past = desk.histories.take(instance)
        if past is None:
            past = Past()
            if instance.history_events:
                past.extend(await self._store.patiently(lambda: self._store.history(instance.instance_id)))
        if not lease.inbox or not desk.streams or lease.token not in desk.claimed:
            await desk.give_back([lease.token])
            return
        turn = engine.begin(instance, past, lease.inbox, datetime.now(UTC))
        if instance.deliveries > desk.limits.deliveries:
            await self._give_up(lease, turn)
            return
        self._send(lease, turn, started, None)

    def _send(
        self,
        lease: Lease,
        turn: Turn,
        started: asyncio.Event | None,
        is_confirmed: "asyncio.Future[bool] | None",
    ) -> RunningTurn:
        instance_id = lease.instance.instance_id
        stream = self._desk.streams.for_turn(instance_id)
        running = RunningTurn(lease, turn, stream, is_confirmed, started)
        self._desk.turns[lease.token] = self._desk.by_instance[instance_id] = running
        stream.send_turn(lease.token, turn)
        return running

    async def _give_up(self, lease: Lease, turn: Turn) -> None:
        deliveries = self._desk.limits.deliveries
        self._desk.counters.deliveries_given_up += 1
        message = (
            f"The workflow was handed to a worker {deliveries} times and never came back: "
            "it seems to end the process. Look at the logs of the workers, then start it anew."
        )
        running = RunningTurn(lease, turn, Stream(0, keeps_history=False))
        await self._commit(running, self._outcome(running, engine.failed("WorkerLost", message)))

    # -- concluding ---------------------------------------------------------------------------------------------

    async def complete(self, response: pb.WorkflowResponse) -> None:
        """A worker's answer to a turn. Raises PayloadTooLarge; the worker may answer again then."""
        desk = self._desk
        running = desk.turns.get(response.completionToken)
        if running is None:
            desk.counters.results_unknown += 1
            log.info("workflow_turn.unknown_result_dropped", instance_id=response.instanceId)
            return
        outcome = self._outcome(running, response)
        if any(action.HasField("completeWorkflow") for action in response.actions):
            running.stream.forget(response.instanceId)  # the worker has done so too
        del desk.turns[response.completionToken]
        running.stream.tokens.discard(response.completionToken)
        # The commit outlives the call: a worker that stops waiting must not undo it.
        await asyncio.shield(desk.spawn(self._commit(running, outcome)))

    def _outcome(self, running: RunningTurn, response: pb.WorkflowResponse) -> Outcome:
        return engine.conclude(
            running.turn, response, now=datetime.now(UTC), limits=self._desk.limits, new_id=lambda: uuid.uuid4().hex
        )

    async def _commit(self, running: RunningTurn, outcome: Outcome) -> None:
        desk = self._desk
        instance_id = running.lease.instance.instance_id
        task_tokens = desk.task_tokens(len(outcome.tasks))
        try:
            committed = await self._write(running, outcome, task_tokens)
        except (asyncpg.DataError, asyncpg.ProgramLimitExceededError) as error:
            desk.unclaim(task_tokens)
            refused = engine.failed("DataRefused", f"The database refused the data: {error}")
            await self._commit(running, self._outcome(running, refused))
            return
        except BaseException:
            desk.unclaim([running.lease.token, *task_tokens])
            raise
        finally:
            if desk.by_instance.get(instance_id) is running:
                del desk.by_instance[instance_id]
        desk.unclaim([running.lease.token])
        if committed is None:
            desk.counters.turns_lost += 1
            desk.unclaim(task_tokens)
            running.stream.forget(instance_id)
            log.info("workflow_turn.lease_lost", instance_id=instance_id)
            desk.nudge(tasks=True)
            return
        desk.counters.turns_committed += 1
        if running.started is not None:
            running.started.set()
        await self._after_commit(running, outcome, committed, task_tokens)

    async def _write(
        self, running: RunningTurn, outcome: Outcome, task_tokens: Sequence[str | None]
    ) -> Committed | None:
        if running.is_confirmed is not None and not await running.is_confirmed:
            return None
        owner = self._desk.owner() or 0
        relaxed = not outcome.tasks and running.started is None
        return await self._store.patiently(
            lambda: self._store.commit_turn(
                running.lease, outcome, owner=owner, task_tokens=task_tokens, relaxed=relaxed
            )
        )

    async def _after_commit(
        self,
        running: RunningTurn,
        outcome: Outcome,
        committed: Committed,
        task_tokens: Sequence[str | None],
    ) -> None:
        desk, instance = self._desk, running.lease.instance
        if not outcome.is_final and outcome.next_generation is None and outcome.status != STALLED:
            self._remember(running, outcome)
        for id_, token, task in zip(committed.task_ids, task_tokens, outcome.tasks, strict=True):
            if token is None:
                desk.nudge(tasks=True)
                continue
            self._begin_task(
                TaskLease(id_, token, instance.instance_id, instance.execution_id, task.task_id, task.event, 1)
            )
        for message in outcome.messages:
            if message.event.HasField("timerFired"):
                desk.note_due(message.visible_at)
            else:
                desk.nudge(message.instance_id)
        if running.is_dirty or outcome.children or outcome.next_generation or outcome.ends_children:
            desk.nudge()
        desk.watch.notify(instance.instance_id, _change(instance, outcome))
        if outcome.is_final or outcome.children or None in task_tokens:
            await desk.announce(instance.instance_id)

    def _remember(self, running: RunningTurn, outcome: Outcome) -> None:
        past = running.turn.past
        past.extend(outcome.history)
        after = replace(
            running.lease.instance,
            suspended=outcome.suspended,
            custom_status=outcome.custom_status,
            history_events=len(past.events),
            deliveries=1,
        )
        self._desk.histories.keep(after, past)


def _change(instance: Instance, outcome: Outcome) -> Change | None:
    if outcome.next_generation is not None:
        return None
    now = datetime.now(UTC)
    return {
        "execution_id": instance.execution_id,
        "status": outcome.status,
        "output": outcome.output,
        "custom_status": outcome.custom_status,
        "failure": None if outcome.failure is None else outcome.failure.SerializeToString(),
        "updated_at": now,
        "completed_at": now if outcome.is_final else None,
    }
