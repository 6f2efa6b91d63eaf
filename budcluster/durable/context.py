"""What an orchestrator may use: time, waiting, branches. Deterministic; the SDK stays behind it.

def provision(ctx: Context, ref: ClusterRef) -> Steps[None]:
    applied = yield from APPLY_TERRAFORM(ctx, ref)
    approval = yield from wait_for_event(ctx, "approve", takes=Approval, timeout=timedelta(hours=24))
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

Out = TypeVar("Out")
Model = TypeVar("Model", bound=BaseModel)

Steps = Generator[Any, Any, Out]
"""What an orchestrator returns: it yields to the engine, and gives `Out` in the end."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and in which rhythm a failed activity is tried again. There is no total limit of time."""

    name: str
    attempts: int
    first_pause: timedelta
    longest_pause: timedelta
    factor: float = 2.0


class Context(Protocol):
    """One instance, as its orchestrator sees it. Orchestrators use the functions of this package, not the methods."""

    @property
    def instance_id(self) -> str: ...

    @property
    def now(self) -> datetime:
        """The workflow's own time in UTC: the same in every replay."""

    @property
    def is_replaying(self) -> bool:
        """Whether this step has happened before; only for `if not ctx.is_replaying: log…`."""

    @property
    def failures(self) -> tuple[type[BaseException], ...]:
        """The engine's own errors of a failed activity or child; their `details` have `error_type` and `message`."""

    def is_patched(self, name: str) -> bool:
        """False for instances that passed this point before the code knew the patch: keep their old way for them."""

    def set_status(self, text: str) -> None:
        """A line for whoever looks at the instance; the last one before a step counts."""

    def continue_as_new(self, payload: BaseModel) -> None:
        """End this generation and begin the next with `payload`; the last statement. Events not yet seen go along."""

    def call_activity(self, name: str, payload: Any, retry: Retry) -> Any:
        """The engine's task of an activity call."""

    def call_child(self, name: str, payload: Any, instance_id: str | None) -> Any:
        """The engine's task of a child workflow."""

    def create_timer(self, delay: timedelta) -> Any:
        """The engine's task of a timer."""

    def wait_for_event(self, name: str, timeout: timedelta | None) -> Any:
        """The engine's task of an event."""

    def when_all(self, tasks: Sequence[Any]) -> Any:
        """The engine's task of all of these; fails with the first failure after all have ended."""

    def when_any(self, tasks: Sequence[Any]) -> Any:
        """The engine's task of the first of these; gives that task."""


class StepFailed(Exception):
    """An activity or a child workflow failed for good. `error_type` is the class name of what it raised."""

    def __init__(self, step: str, error_type: str, message: str) -> None:
        super().__init__(f"{step}: {message}")
        self.step = step
        self.error_type = error_type
        self.message = message


@dataclass(frozen=True, slots=True)
class Pending(Generic[Out]):
    """Something that was begun: an activity, a child, a timer, an event. Wait for it alone, or with others."""

    step: str
    task: Any
    decode: Callable[[Any], Out]

    def result(self, ctx: Context) -> Out:
        """What came out, once `wait_for_any` has named this one. Raises StepFailed."""
        try:
            return self.decode(self.task.get_result())
        except ctx.failures as error:
            raise _step_failed(self.step, error) from error


def wait_for(ctx: Context, pending: Pending[Out]) -> Steps[Out]:
    """Wait for one. Raises StepFailed, and TimeoutError for an event that did not come in time."""
    try:
        value = yield pending.task
    except ctx.failures as error:
        raise _step_failed(pending.step, error) from error
    return pending.decode(value)


def wait_for_all(ctx: Context, pending: Sequence[Pending[Out]]) -> Steps[list[Out]]:
    """Wait until all have ended; results in the given order. Raises StepFailed for the first failure."""
    step = ", ".join(dict.fromkeys(one.step for one in pending))
    try:
        values = yield ctx.when_all([one.task for one in pending])
    except ctx.failures as error:
        raise _step_failed(step, error) from error
    return [one.decode(value) for one, value in zip(pending, values, strict=True)]


def wait_for_any(ctx: Context, pending: Sequence[Pending[Any]]) -> Steps[Pending[Any]]:
    """Wait for the first to end, well or badly, and return that one. The others go on."""
    first = yield ctx.when_any([one.task for one in pending])
    return next(one for one in pending if one.task is first)


def sleep(ctx: Context, delay: timedelta) -> Steps[None]:
    """Wait for a while; survives restarts."""
    yield ctx.create_timer(delay)


def timer(ctx: Context, delay: timedelta) -> Pending[None]:
    """A timer to wait for together with other things."""
    return Pending("timer", ctx.create_timer(delay), lambda _: None)


def event(ctx: Context, name: str, *, takes: type[Model], timeout: timedelta | None = None) -> Pending[Model]:
    """An event to wait for together with other things; with a timeout its result may raise TimeoutError."""
    return Pending(f"event {name}", ctx.wait_for_event(name, timeout), lambda raw: takes.model_validate(raw or {}))


def wait_for_event(ctx: Context, name: str, *, takes: type[Model], timeout: timedelta | None = None) -> Steps[Model]:
    """Wait for an event. Raises TimeoutError."""
    return (yield from wait_for(ctx, event(ctx, name, takes=takes, timeout=timeout)))


def _step_failed(step: str, error: BaseException) -> StepFailed:
    details = getattr(error, "details", None)
    return StepFailed(
        step, getattr(details, "error_type", type(error).__name__), getattr(details, "message", str(error))
    )
