"""How activities tell what they are doing: steps, percent, log lines; and how a wish to cancel reaches them.

    async def apply_terraform(self, payload: OperationPayload, execution: Execution) -> Applied:
        journal = self.journals.of(payload, redactor=Redactor([token]))

        async def act(step: StepJournal) -> Applied:
            step.log("Planning")
            step.percent(40, detail="12 of 30 resources")
            return Applied(...)

        return await journal.run("apply_terraform", act, gives=Applied)

`run` marks the step as running, stops `act` when somebody cancels, stores what it gave, and gives that back at once
when the activity is repeated after it succeeded. Reporting never slows the work: lines and percent are written by the
way, some times a second, and wait out a lost database.

When the engine hands a step to another replica because this one was thought dead, the other one takes over: what runs
here is stopped, nothing of it is written any more, and `run` gives what the other one achieves.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import uuid4

import structlog
from pydantic import BaseModel
from sqlalchemy import select

from budcluster.durable.errors import NonRetryableError
from budcluster.kit.cancellation import raise_if_cancelled
from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import Database, DatabaseUnavailable
from budcluster.kit.redaction import Redactor
from budcluster.operations.causes import Cause, cause_of
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.errors import OperationCancelled, StaleAttempt, Superseded
from budcluster.operations.ledger import CHANGED, HALTED, MAX_LINE_CHARACTERS, Ledger
from budcluster.operations.models import FINISHED, Operation, OperationStatus, OperationStep, StepStatus
from budcluster.operations.notices import Notices

log = structlog.get_logger(__name__)

FLUSH_S: Final = 0.4
_STOP_POLL_S: Final = 15.0
"""Hundreds of steps wait at once, and nearly all hear in time that they have to stop."""
_UNTOLD_POLL_S: Final = 2.0
_BUFFERED_LINES: Final = 2_000
_WRITE_PATIENCE_S: Final = 60.0

ResultT = TypeVar("ResultT", bound=BaseModel)
AnyT = TypeVar("AnyT")


class StepJournal:
    """One step at work. `log` and `percent` return at once and may be called as often as one likes."""

    def __init__(self, name: str, *, clock: Clock, redactor: Redactor, runner: str | None = None) -> None:
        self.name = name
        self.runner = runner
        """Marks the step as ours; None: for what happens around steps."""
        self.recorded: dict[str, Any] | None = None
        """What the step gave when it succeeded before; None: it has to be done."""
        self.is_done = False
        self.result: dict[str, Any] | None = None
        """Set it to small facts that a repetition should get."""
        self._clock = clock
        self._mask = redactor.mask
        self._mask_line = redactor.lines().mask
        self._lines: deque[tuple[str, datetime, str]] = deque()
        self._dropped = 0
        self._percent = 0
        self._detail: str | None = None
        self._is_changed = False

    def log(self, line: str) -> None:
        """Keep a line, masked and cut to size. When the database is away for long, the oldest ones are dropped."""
        if len(self._lines) >= _BUFFERED_LINES:
            self._lines.popleft()
            self._dropped += 1
        clean = self._mask_line(line).replace("\0", "").rstrip()[:MAX_LINE_CHARACTERS]
        self._lines.append((self.name, self._clock.now(), clean.encode(errors="replace").decode()))

    def percent(self, value: float, *, detail: str | None = None) -> None:
        """Say how far the step is, 0 to 100. It never goes back; `detail` is a few words on what happens now."""
        self._percent = max(self._percent, min(99, int(value)))
        self._detail = self._detail if detail is None else self._mask(detail)[:500]
        self._is_changed = True

    def check(self, row: OperationStep) -> None:
        """Raise Superseded when somebody else works on the step now."""
        if self.runner is not None and row.runner != self.runner:
            raise Superseded(f"{self.name} was taken up elsewhere")

    @property
    def has_news(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._lines) or self._is_changed

    async def write_to(self, ledger: Ledger, **values: Any) -> Callable[[], None]:
        """Write what waits, and these values of the step. Call what it gives back once that is committed.

        Raises Superseded.
        """
        self.check(ledger.steps[self.name])
        lines = list(self._lines)
        dropped, percent, detail = self._dropped, self._percent, self._detail
        if dropped:
            note = f"{dropped} lines were dropped while the database was away"
            await ledger.append_log([(self.name, self._clock.now(), note)])
        await ledger.append_log(lines)
        step = ledger.steps[self.name]
        if self._is_changed and (percent > step.percent or detail != step.detail):
            values = {"percent": max(percent, step.percent), "detail": detail, **values}
        if values:
            await ledger.change_step(self.name, **values)

        def written() -> None:
            for line in lines:
                # What overflowed meanwhile is gone already.
                if self._lines and self._lines[0] is line:
                    self._lines.popleft()
            self._dropped -= dropped
            self._is_changed = (percent, detail) != (self._percent, self._detail)

        return written


class Journal:
    """One attempt's way to tell about itself.

    Raises NonRetryableError from OperationCancelled when somebody cancelled, and from StaleAttempt when the attempt is
    no longer the present one: the activity must end, and not be tried again.
    """

    def __init__(
        self, database: Database, payload: OperationPayload, *, notices: Notices, redactor: Redactor, clock: Clock
    ) -> None:
        self._database = database
        self._payload = payload
        self._notices = notices
        self._redactor = redactor
        self._clock = clock

    async def run(
        self, name: str, act: Callable[[StepJournal], Coroutine[Any, Any, ResultT]], *, gives: type[ResultT]
    ) -> ResultT:
        """Do a step once: recorded, cancellable, its result remembered."""
        try:
            async with self.step(name) as step:
                if step.is_done:
                    return gives.model_validate(step.recorded or {})
                result = await self.cancellable(act(step), step=step)
                step.result = result.model_dump(mode="json")
                return result
        except NonRetryableError as error:
            if not isinstance(error.__cause__, Superseded):
                raise
        return gives.model_validate(await self._result_from_elsewhere(name))

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[StepJournal]:
        """Mark a step as running, and at the end as succeeded; the first start is kept when it is repeated.

        An error leaves it running with the cause noted, because the activity may be repeated; when nobody repeats it,
        the operation's end marks it as failed. Cancelling is also seen before it begins.
        """
        step = StepJournal(name, clock=self._clock, redactor=self._redactor, runner=uuid4().hex)
        with _for_good():
            await self._patiently(lambda ledger: self._begin(ledger, step))
            if step.is_done:
                yield step
                return
            try:
                async with self._writing_by_the_way(step):
                    yield step
            except (StaleAttempt, OperationCancelled):
                raise
            except Exception as error:
                cause = cause_of(error, step=name, mask=self._redactor.mask)
                # Errors of our own are for people; one of Python's is a defect, and its place is wanted.
                trace = error if type(error).__module__ == "builtins" else None
                log.warning("step.attempt_failed", step=name, type=cause.type, detail=cause.detail, exc_info=trace)
                with contextlib.suppress(StaleAttempt, DatabaseUnavailable):
                    await self._patiently(lambda ledger: self._note(ledger, step, cause))
                raise
            await self._patiently(lambda ledger: self._succeed(ledger, step))

    @asynccontextmanager
    async def undoing(self, name: str) -> AsyncIterator[StepJournal]:
        """Take a step's work back: lines are kept under that step, and a wish to cancel does not interrupt."""
        step = StepJournal(name, clock=self._clock, redactor=self._redactor)
        step.percent(0, detail="Being undone")
        with _for_good():
            async with self._writing_by_the_way(step):
                yield step
            if step.has_news:
                await self._patiently(step.write_to)

    async def rows(self, *names: str) -> Sequence[OperationStep]:
        """What is written down of these steps."""
        mine = OperationStep.operation_id == self._payload.operation_id
        async with self._database.reading() as session:
            return (await session.scalars(select(OperationStep).where(mine, OperationStep.name.in_(names)))).all()

    async def skip(self, name: str, why: str) -> None:
        """Mark a step as not needed."""

        async def change(ledger: Ledger) -> None:
            if ledger.steps[name].status is StepStatus.PENDING:
                detail = self._redactor.mask(why)[:500]
                await ledger.change_step(name, status=StepStatus.SKIPPED, detail=detail, finished_at=self._clock.now())

        with _for_good():
            await self._patiently(change)

    async def cancellable(self, work: Coroutine[Any, Any, AnyT], *, step: StepJournal | None = None) -> AnyT:
        """Await work until it is done, somebody cancels the operation, or another activity takes the step up.

        Then the work is cancelled and awaited to its end: raises OperationCancelled, Superseded or StaleAttempt, or
        gives its result if it was finished all the same.
        """
        act = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._wait_for_stop(step))
        try:
            await asyncio.wait({act, stop}, return_when=asyncio.FIRST_COMPLETED)
            if act.done():
                return act.result()
            act.cancel()
            await asyncio.wait({act})
            if act.cancelled() or act.exception() is not None:
                raise stop.result() from _error_of(act)
            return act.result()
        finally:
            for task in (act, stop):
                task.cancel()
            await asyncio.gather(act, stop, return_exceptions=True)

    async def _wait_for_stop(self, step: StepJournal | None) -> Exception:
        with self._notices.bell(HALTED, str(self._payload.operation_id)) as bell:
            while True:
                raise_if_cancelled()
                try:
                    operation, row = await self._look(step.name if step else None)
                    if step is not None and row is not None:
                        step.check(row)
                except StaleAttempt as reason:
                    return reason
                except DatabaseUnavailable:
                    log.info("journal.database_awaited", operation_id=str(self._payload.operation_id))
                else:
                    if operation.status is OperationStatus.CANCELLING:
                        return OperationCancelled("The operation was cancelled; the step was stopped.")
                await bell.wait(_STOP_POLL_S if self._notices.is_connected else _UNTOLD_POLL_S)

    async def _result_from_elsewhere(self, name: str) -> dict[str, Any]:
        """Wait for what the one who took the step up achieves. The operation's end ends this, too."""
        with _for_good(), self._notices.bell(CHANGED, str(self._payload.operation_id)) as bell:
            while True:
                raise_if_cancelled()
                with contextlib.suppress(DatabaseUnavailable):
                    _, row = await self._look(name)
                    if row is not None and row.status is StepStatus.SUCCEEDED:
                        return row.result or {}
                await bell.wait(_UNTOLD_POLL_S)

    async def _look(self, name: str | None) -> tuple[Operation, OperationStep | None]:
        """The operation and a step of it. Raises StaleAttempt when the attempt has ended or was replaced."""
        async with self._database.reading() as session:
            operation = await session.get(Operation, self._payload.operation_id)
            row = await session.get(OperationStep, (self._payload.operation_id, name)) if name else None
        if operation is None or operation.attempt != self._payload.attempt or operation.status in FINISHED:
            raise StaleAttempt(f"attempt {self._payload.attempt} has ended")
        return operation, row

    async def _begin(self, ledger: Ledger, step: StepJournal) -> None:
        row = ledger.steps[step.name]
        if row.status is StepStatus.SUCCEEDED:
            step.is_done, step.recorded = True, row.result
            return
        if ledger.operation.status is OperationStatus.CANCELLING:
            raise OperationCancelled("The operation was cancelled before this step began.")
        is_taken_over = row.status is StepStatus.RUNNING
        values = {
            "status": StepStatus.RUNNING,
            "started_at": row.started_at if is_taken_over else self._clock.now(),
            "runner": step.runner,
        }
        await ledger.change_step(step.name, *((HALTED,) if is_taken_over else ()), **values)

    async def _succeed(self, ledger: Ledger, step: StepJournal) -> None:
        ends = {"status": StepStatus.SUCCEEDED, "percent": 100, "error": None, "result": step.result}
        await step.write_to(ledger, **ends, finished_at=self._clock.now())

    async def _note(self, ledger: Ledger, step: StepJournal, cause: Cause) -> None:
        await step.write_to(ledger, error=cause.facts(), detail=cause.detail[:500])

    @asynccontextmanager
    async def _writing_by_the_way(self, step: StepJournal) -> AsyncIterator[None]:
        """What waits at a good end is left to whoever writes of that end."""
        over, ended_well = asyncio.Event(), False
        writer = asyncio.ensure_future(self._write_until(over, step))
        try:
            yield
            ended_well = True
        finally:
            over.set()
            await writer
            if not ended_well:
                await self._write_news(step)

    async def _write_until(self, over: asyncio.Event, step: StepJournal) -> None:
        while not over.is_set():
            try:
                async with asyncio.timeout(FLUSH_S):
                    await over.wait()
            except TimeoutError:
                await self._write_news(step)

    async def _write_news(self, step: StepJournal) -> None:
        with contextlib.suppress(DatabaseUnavailable, StaleAttempt):
            if step.has_news:
                await self._write(step)

    async def _write(self, step: StepJournal) -> None:
        async with self._database.writing() as session:
            ledger = await Ledger.open(session, self._payload.operation_id, attempt=self._payload.attempt)
            written = await step.write_to(ledger)
        written()

    async def _patiently(self, change: Callable[[Ledger], Awaitable[object]]) -> None:
        """Change the operation; a lost database is waited for a while before DatabaseUnavailable is raised."""
        deadline = asyncio.get_running_loop().time() + _WRITE_PATIENCE_S
        while True:
            raise_if_cancelled()
            try:
                async with self._database.writing() as session:
                    await change(await Ledger.open(session, self._payload.operation_id, attempt=self._payload.attempt))
            except DatabaseUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(FLUSH_S)
            else:
                return


class Journals:
    """Gives activities their journals."""

    def __init__(self, database: Database, notices: Notices, clock: Clock | None = None) -> None:
        self._database = database
        self._notices = notices
        self._clock = clock or SystemClock()

    def of(self, payload: OperationPayload, *, redactor: Redactor | None = None) -> Journal:
        """The journal of the attempt that `payload` names.

        `redactor` knows the secrets that the work uses; without one, only what looks like a secret is masked.
        """
        redactor = redactor or Redactor()
        return Journal(self._database, payload, notices=self._notices, redactor=redactor, clock=self._clock)


@contextmanager
def _for_good() -> Iterator[None]:
    """Nobody shall try again what was cancelled or replaced."""
    try:
        yield
    except (OperationCancelled, StaleAttempt) as error:
        raise NonRetryableError(str(error)) from error


def _error_of(task: "asyncio.Future[Any]") -> BaseException | None:
    return None if task.cancelled() else task.exception()
