"""Moves work between the store and the connected workers.

Work that this process creates (the first turn of a new instance, an activity a turn schedules, the turn an activity's
result wakes) is leased in the statement that writes it and handed on at once. All else is found by the picking loop,
which runs when something local happens, when another replica calls, when the next timer is due, and once a second.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import asyncpg
import structlog

from budcluster.durable.sidecar import engine, events
from budcluster.durable.sidecar.limits import Limits
from budcluster.durable.sidecar.protos import STALLED, pb
from budcluster.durable.sidecar.rerun import Rerun
from budcluster.durable.sidecar.store import TEMPORARY, Committed, Lease, Store, TaskLease
from budcluster.durable.sidecar.streams import Histories, Stream, Streams
from budcluster.durable.sidecar.watch import Watch

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_POLL_S: Final = 1.0
_BATCH: Final = 32
_FIRST_TURN_S: Final = 0.05
"""How long the answer to a start may wait for the first turn, to go to disk with it."""


@dataclass(slots=True)
class Counters:
    """What happened since the start; for metrics."""

    turns_committed: int = 0
    turns_lost: int = 0
    tasks_finished: int = 0
    tasks_failed_by_limit: int = 0
    results_unknown: int = 0
    deliveries_given_up: int = 0
    streams_opened: int = 0


@dataclass(slots=True)
class _RunningTurn:
    lease: Lease
    turn: engine.Turn
    stream: Stream
    started: asyncio.Event | None = None
    """Set when the turn is on disk; somebody waits for the start to be so."""
    is_dirty: bool = False
    """A message came for this instance meanwhile: look again when the turn is over."""


@dataclass(slots=True)
class _RunningTask:
    lease: TaskLease
    stream: Stream


class Dispatcher:
    """One process's share of the work. Everything runs on one event loop; nothing here blocks it."""

    def __init__(self, store: Store, limits: Limits, *, owner: Callable[[], int | None], watch: Watch) -> None:
        self._store = store
        self._limits = limits
        self._owner = owner
        self._watch = watch
        self.streams = Streams()
        self.counters = Counters()
        self._histories = Histories()
        self._turns: dict[str, _RunningTurn] = {}
        self._by_instance: dict[str, _RunningTurn] = {}
        self._tasks: dict[str, _RunningTask] = {}
        self._claimed: set[str] = set()
        """Tokens this process made and has not given back: also those of statements on their way."""
        self._wake = asyncio.Event()
        self._look_for_tasks = True
        self._next_due = 0.0
        self._background: set[asyncio.Task[None]] = set()
        self._progress = asyncio.Event()
        self.is_draining = False
        self.has_peers = False

    # -- workers ------------------------------------------------------------------------------------------------

    def connect(self, *, keeps_history: bool) -> Stream:
        """A worker asks for work."""
        stream = self.streams.open(keeps_history=keeps_history)
        self.counters.streams_opened += 1
        self._spawn(self._unstall())
        return stream

    def disconnect(self, stream: Stream) -> None:
        """A worker went away: what it held is handed out again at once."""
        self.streams.close(stream)
        tokens = list(stream.tokens)
        stream.tokens.clear()
        for token in tokens:
            self._forget(token)
        if tokens:
            self._spawn(self._give_back(tokens))

    async def _unstall(self) -> None:
        await self._store.patiently(self._store.unstall)
        self.nudge(tasks=True)

    async def _give_back(self, tokens: list[str]) -> None:
        owner = self._owner()
        if owner is not None:
            await self._store.patiently(lambda: self._store.release(owner, tokens, uncounted=self.is_draining))
        self._claimed.difference_update(tokens)
        self.nudge(tasks=True)
        await self._announce("")

    def forget_everything(self) -> None:
        """The others gave this process up: nothing it holds is its own any more."""
        for token in [*self._turns, *self._tasks]:
            self._forget(token)
        self._claimed.clear()
        for stream in self.streams:
            stream.tokens.clear()
            stream.warm.clear()

    def distrust(self) -> None:
        """PostgreSQL may have crashed and lost the last writes: send and read whole histories again."""
        self._histories = Histories()
        for stream in self.streams:
            stream.warm.clear()

    def _forget(self, token: str) -> None:
        if (turn := self._turns.pop(token, None)) is not None:
            self._by_instance.pop(turn.lease.instance.instance_id, None)
            turn.stream.forget(turn.lease.instance.instance_id)
        self._tasks.pop(token, None)

    # -- finding work -------------------------------------------------------------------------------------------

    def nudge(self, instance_id: str | None = None, *, tasks: bool = False) -> None:
        """Look for work now; `instance_id` got a message."""
        if instance_id is not None and (turn := self._by_instance.get(instance_id)) is not None:
            turn.is_dirty = True
        self._look_for_tasks |= tasks
        self._wake.set()

    def _note_due(self, due: datetime) -> None:
        at = asyncio.get_running_loop().time() + (due - datetime.now(UTC)).total_seconds()
        if at < self._next_due:
            self._next_due = at
            self._wake.set()

    async def run(self) -> None:
        """Pick work until cancelled."""
        loop = asyncio.get_running_loop()
        next_poll = 0.0
        while True:
            self._wake.clear()
            try:
                if loop.time() >= next_poll:
                    next_poll = loop.time() + _POLL_S
                    self._look_for_tasks = True
                if await self._pick():
                    continue
                if loop.time() >= self._next_due:
                    due = await self._store.next_due()
                    self._next_due = loop.time() + (3600.0 if due is None else due.total_seconds() + 0.002)
            except (*TEMPORARY, asyncpg.ForeignKeyViolationError) as error:
                log.warning("workflow_picker.interrupted", error=str(error))
                await asyncio.sleep(0.2)
                continue
            except Exception:  # background loop: it must not end while the process lives
                log.exception("workflow_picker.failed")
                await asyncio.sleep(1)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(next_poll, self._next_due) - loop.time())):
                    await self._wake.wait()

    async def _pick(self) -> bool:
        """Take what is due and free; whether there may be more."""
        owner = self._owner()
        if owner is None or not self.streams or self.is_draining:
            return False
        more = False
        room = min(_BATCH, self._limits.turns_in_flight - len(self._turns))
        if room > 0:
            tokens = self._claim(room)
            leases = await self._claiming(tokens, self._store.lease_turns(owner, tokens))
            self._unclaim(set(tokens) - {lease.token for lease in leases})
            for lease in leases:
                self._spawn(self._begin_turn(lease))
            more = len(leases) == room
        room = min(_BATCH, self._limits.activities_in_flight - len(self._tasks))
        if room > 0 and self._look_for_tasks:
            self._look_for_tasks = False
            tokens = self._claim(room)
            tasks = await self._claiming(tokens, self._store.lease_tasks(owner, tokens))
            self._unclaim(set(tokens) - {task.token for task in tasks})
            for task in tasks:
                self._spawn(self._begin_task(task))
            self._look_for_tasks = len(tasks) == room
            more = more or self._look_for_tasks
        return more

    # -- tokens -------------------------------------------------------------------------------------------------

    def _claim(self, count: int) -> list[str]:
        tokens = [uuid.uuid4().hex for _ in range(count)]
        self._claimed.update(tokens)
        return tokens

    def _unclaim(self, tokens: set[str]) -> None:
        self._claimed.difference_update(tokens)

    async def _claiming(self, tokens: list[str], statement: Awaitable[Result]) -> Result:
        """Await a statement that uses claimed tokens; a claim ends with a statement that failed."""
        try:
            return await statement
        except BaseException:
            self._unclaim(set(tokens))
            raise

    def _turn_token(self) -> str | None:
        """A token for a turn to be leased on the way, where this process can run it."""
        if self._owner() is None or not self.streams or self.is_draining:
            return None
        if len(self._turns) >= self._limits.turns_in_flight:
            self._wake.set()
            return None
        return self._claim(1)[0]

    def _task_tokens(self, count: int) -> list[str | None]:
        room = 0
        if self._owner() is not None and self.streams and not self.is_draining:
            room = max(0, min(count, self._limits.activities_in_flight - len(self._tasks)))
        return [*self._claim(room), *[None] * (count - room)]

    async def reconcile(self) -> None:
        """Give back leases that only the database knows of: the reply that named them was lost on the way."""
        owner = self._owner()
        if owner is not None:
            # A token is claimed before it is written: one that is written and not claimed now has no one.
            orphans = [token for token in await self._store.held_tokens(owner) if token not in self._claimed]
            if orphans:
                log.info("workflow_leases.orphans_released", count=len(orphans))
                await self._give_back(orphans)

    # -- turns --------------------------------------------------------------------------------------------------

    async def start(self, new: engine.NewInstance, *, scheduled_at: datetime | None) -> None:
        """Create an instance and begin its first turn. Raises InstanceExists, StoreAway."""
        token = None if scheduled_at is not None else self._turn_token()
        owner = self._owner() if token is not None else None

        async def create() -> Lease | None:
            return await self._store.create(
                new, scheduled_at=scheduled_at, owner=owner, token=token, relaxed=token is not None
            )

        tokens = [] if token is None else [token]
        try:
            lease = await self._claiming(tokens, self._store.patiently(create, patience_s=10))
        except asyncpg.ForeignKeyViolationError:
            # The others gave this process up a moment ago: somebody else may take the first turn.
            owner, token, tokens = None, None, []
            lease = await self._store.patiently(create, patience_s=10)
        if lease is not None:
            await self._begin_turn(lease, started := asyncio.Event())
            await self._on_disk(new.instance_id, started)
            return
        self._unclaim(set(tokens))
        if token is not None:
            await self._store.patiently(lambda: self._store.make_durable(new.instance_id), patience_s=10)
        if scheduled_at is not None:
            self._note_due(scheduled_at)
        self.nudge()
        await self._announce(new.instance_id)

    async def _on_disk(self, instance_id: str, started: asyncio.Event) -> None:
        """Return when the start is on disk: usually the first turn brings it there."""
        try:
            async with asyncio.timeout(_FIRST_TURN_S):
                await started.wait()
        except TimeoutError:
            await self._store.patiently(lambda: self._store.make_durable(instance_id), patience_s=10)

    async def _begin_turn(self, lease: Lease, started: asyncio.Event | None = None) -> None:
        instance = lease.instance
        past = self._histories.take(instance)
        if past is None:
            past = engine.Past()
            if instance.history_events:
                past.extend(await self._store.patiently(lambda: self._store.history(instance.instance_id)))
        turn = engine.begin(instance, past, lease.inbox, datetime.now(UTC))
        if not lease.inbox or not self.streams or lease.token not in self._claimed:
            await self._give_back([lease.token])
            return
        if instance.deliveries > self._limits.deliveries:
            self.counters.deliveries_given_up += 1
            message = (
                f"The workflow was handed to a worker {self._limits.deliveries} times and never came back: "
                "it seems to end the process. Look at the logs of the workers, then start it anew."
            )
            await self._conclude(
                _RunningTurn(lease, turn, Stream(0, keeps_history=False)), engine.failed("WorkerLost", message)
            )
            return
        stream = self.streams.for_turn(instance.instance_id)
        running = _RunningTurn(lease, turn, stream, started)
        self._turns[lease.token] = self._by_instance[instance.instance_id] = running
        stream.send_turn(lease.token, turn)

    async def complete_turn(self, response: pb.WorkflowResponse) -> None:
        """A worker's answer to a turn. Raises PayloadTooLarge; the worker may answer again then."""
        running = self._turns.get(response.completionToken)
        if running is None:
            self.counters.results_unknown += 1
            log.info("workflow_turn.unknown_result_dropped", instance_id=response.instanceId)
            return
        outcome = self._outcome(running, response)
        if any(action.HasField("completeWorkflow") for action in response.actions):
            running.stream.forget(response.instanceId)  # the worker has done so too
        del self._turns[response.completionToken]
        running.stream.tokens.discard(response.completionToken)
        # The commit outlives the call: a worker that stops waiting must not undo it.
        await asyncio.shield(self._spawn(self._commit(running, outcome)))

    def _outcome(self, running: _RunningTurn, response: pb.WorkflowResponse) -> engine.Outcome:
        return engine.conclude(
            running.turn, response, now=datetime.now(UTC), limits=self._limits, new_id=lambda: uuid.uuid4().hex
        )

    async def _conclude(self, running: _RunningTurn, response: pb.WorkflowResponse) -> None:
        await self._commit(running, self._outcome(running, response))

    async def _commit(self, running: _RunningTurn, outcome: engine.Outcome) -> None:
        lease = running.lease
        task_tokens = self._task_tokens(len(outcome.tasks))
        owner = self._owner() or 0
        relaxed = not outcome.tasks and running.started is None
        try:
            committed = await self._store.patiently(
                lambda: self._store.commit_turn(lease, outcome, owner=owner, task_tokens=task_tokens, relaxed=relaxed)
            )
        except (asyncpg.DataError, asyncpg.ProgramLimitExceededError) as error:
            self._unclaim({token for token in task_tokens if token is not None})
            await self._conclude(running, engine.failed("DataRefused", f"The database refused the data: {error}"))
            return
        except BaseException:
            self._unclaim({lease.token, *(token for token in task_tokens if token is not None)})
            raise
        finally:
            if self._by_instance.get(lease.instance.instance_id) is running:
                del self._by_instance[lease.instance.instance_id]
        self._claimed.discard(lease.token)
        if committed is None:
            self._lost(running, task_tokens)
            return
        self.counters.turns_committed += 1
        if running.started is not None:
            running.started.set()
        await self._after_commit(running, outcome, committed, task_tokens)

    def _lost(self, running: _RunningTurn, task_tokens: list[str | None]) -> None:
        self.counters.turns_lost += 1
        self._unclaim({token for token in task_tokens if token is not None})
        running.stream.forget(running.lease.instance.instance_id)
        log.info("workflow_turn.lease_lost", instance_id=running.lease.instance.instance_id)
        self.nudge(tasks=True)

    async def _after_commit(
        self,
        running: _RunningTurn,
        outcome: engine.Outcome,
        committed: Committed,
        task_tokens: list[str | None],
    ) -> None:
        instance = running.lease.instance
        if not outcome.is_final and outcome.next_generation is None and outcome.status != STALLED:
            running.turn.past.extend(outcome.history)
            self._histories.keep(instance, running.turn.past)
        for id_, token, task in zip(committed.task_ids, task_tokens, outcome.tasks, strict=True):
            if token is None:
                self._look_for_tasks = True
                self._wake.set()
                continue
            leased = TaskLease(
                id_, token, instance.instance_id, instance.execution_id, task.task_id, task.event, deliveries=1
            )
            await self._begin_task(leased)
        for message in outcome.messages:
            if message.event.HasField("timerFired"):
                self._note_due(message.visible_at)
            else:
                self.nudge(message.instance_id)
        if running.is_dirty or outcome.children or outcome.next_generation or outcome.ends_children:
            self.nudge()
        self._watch.notify(instance.instance_id, outcome.status)
        if outcome.is_final or outcome.children or any(token is None for token in task_tokens):
            await self._announce(instance.instance_id)

    # -- activities ---------------------------------------------------------------------------------------------

    async def _begin_task(self, task: TaskLease) -> None:
        if not self.streams or task.token not in self._claimed:
            await self._give_back([task.token])
            return
        scheduled = task.event.taskScheduled
        if task.deliveries > self._limits.deliveries:
            self.counters.deliveries_given_up += 1
            message = (
                f"Activity {scheduled.name!r} was handed to a worker {self._limits.deliveries} times and never "
                "finished: it seems to end the process. Look at the logs of the workers, then run it anew."
            )
            failed = events.task_failed(
                datetime.now(UTC), task.task_id, events.failure("WorkerLost", message, final=True)
            )
            await self._finish(task, failed)
            return
        request = pb.ActivityRequest(
            name=scheduled.name, taskId=task.task_id, taskExecutionId=scheduled.taskExecutionId
        )
        if scheduled.HasField("version"):
            request.version.CopyFrom(scheduled.version)
        if scheduled.HasField("input"):
            request.input.CopyFrom(scheduled.input)
        request.workflowInstance.instanceId = task.instance_id
        request.workflowInstance.executionId.value = task.execution_id
        stream = self.streams.for_task()
        self._tasks[task.token] = _RunningTask(task, stream)
        stream.send_task(task.token, request)

    async def complete_task(self, response: pb.ActivityResponse) -> None:
        """A worker's result of an activity. Raises PayloadTooLarge; the worker reports a failure then."""
        running = self._tasks.get(response.completionToken)
        if running is None:
            self.counters.results_unknown += 1
            log.info("workflow_task.unknown_result_dropped", instance_id=response.instanceId)
            return
        name = running.lease.event.taskScheduled.name
        try:
            self._limits.check(f"The result of activity {name!r}", response.result.value)
        except ValueError:
            self.counters.tasks_failed_by_limit += 1
            raise
        del self._tasks[response.completionToken]
        running.stream.tokens.discard(response.completionToken)
        event = events.task_completed(datetime.now(UTC), running.lease.task_id, response)
        await asyncio.shield(self._spawn(self._finish(running.lease, event)))

    async def _finish(self, task: TaskLease, event: pb.HistoryEvent) -> None:
        turn_token = self._turn_token()
        owner = self._owner() or 0
        tokens = [] if turn_token is None else [turn_token]

        finished = await self._claiming(
            tokens,
            self._store.patiently(lambda: self._store.finish_task(task, event, owner=owner, turn_token=turn_token)),
        )
        self._claimed.discard(task.token)
        if finished is not None and finished.lease is not None:
            self.counters.tasks_finished += 1
            await self._begin_turn(finished.lease)
            return
        self._unclaim(set(tokens))
        if finished is None:
            self.counters.results_unknown += 1
            log.info("workflow_task.lease_lost", instance_id=task.instance_id, task_id=task.task_id)
            return
        self.counters.tasks_finished += 1
        self.nudge(task.instance_id)
        await self._announce(task.instance_id)

    # -- messages, lifecycle ------------------------------------------------------------------------------------

    async def post(self, instance_id: str, event: pb.HistoryEvent, *, at_once: bool = False) -> bool | None:
        """Send an instance a message; see Store.post. Raises StoreAway."""
        accepted = await self._store.patiently(
            lambda: self._store.post(instance_id, event, at_once=at_once), patience_s=10
        )
        if accepted:
            self.nudge(instance_id)
            await self._announce(instance_id)
        return accepted

    async def rerun(self, plan: Rerun) -> None:
        """Create an instance from a part of another's history. Raises InstanceExists, StoreAway."""
        await self._store.patiently(lambda: self._store.rerun(plan), patience_s=10)
        self.nudge(tasks=True)
        await self._announce(plan.instance.instance_id)

    async def _announce(self, instance_id: str) -> None:
        if self.has_peers:
            await self._store.announce(instance_id)

    async def drain(self, grace_s: float) -> None:
        """Take no new work, wait for what runs, then end the streams. What is left is given back uncounted."""
        self.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._until(lambda: not (self._turns or self._tasks or self._background))
        for stream in self.streams:
            self.disconnect(stream)
            stream.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._until(lambda: not self._background)
        for task in list(self._background):
            task.cancel()

    async def _until(self, is_reached: Callable[[], bool]) -> None:
        while not is_reached():
            self._progress.clear()
            await self._progress.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._background.discard(task)
        self._progress.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("workflow_dispatch.failed", error=str(error), exc_info=error)
            self.nudge(tasks=True)

    def snapshot(self) -> dict[str, int]:
        """Present state and counters."""
        return {
            "workers": len(self.streams),
            "turns_in_flight": len(self._turns),
            "activities_in_flight": len(self._tasks),
            **asdict(self.counters),
        }
