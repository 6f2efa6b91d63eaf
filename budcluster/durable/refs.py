"""Typed names of workflows and activities: what orchestrators call and services start.

    APPLY_TERRAFORM: Final = ActivityRef("apply_terraform", takes=ClusterRef, gives=Applied, retry=PATIENT)
    applied = yield from APPLY_TERRAFORM(ctx, ref)

A name is permanent once shipped: running instances carry it in their history.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar, overload

from pydantic import BaseModel, ValidationError

from budcluster.durable.context import Context, Retry, StepFailed, Steps
from budcluster.durable.errors import NonRetryableError

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel | None)

PATIENT: Final = Retry("patient", 60, timedelta(seconds=5), timedelta(minutes=2))
"""About two hours: for work that must be done, such as taking things back, through outages of others."""
QUICK: Final = Retry("quick", 5, timedelta(seconds=1), timedelta(seconds=10))
"""About fifteen seconds: for hiccups."""
NEVER: Final = Retry("never", 1, timedelta(0), timedelta(0))
"""One try: for work whose failure somebody should see at once."""


_NOTHING: Final = type(None)


def decode(model: type[Any], raw: Any, *, what: str) -> Any:
    """Validate a payload; the error names fields and never echoes values. Raises NonRetryableError."""
    if model is _NOTHING:
        return None
    try:
        return model.model_validate({} if raw is None else raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['type']}" for one in error.errors())
    raise NonRetryableError(f"The payload of {what} is not valid: {problems}")


def encode(payload: BaseModel | None) -> Any:
    """Plain JSON data of a payload."""
    return None if payload is None else payload.model_dump(mode="json")


@dataclass(frozen=True, slots=True, init=False)
class ActivityRef(Generic[In, Out]):
    """An activity. Called in an orchestrator it runs, is retried by its policy, and gives its result."""

    name: str
    takes: type[In]
    gives: type[Out]
    retry: Retry

    @overload
    def __init__(self: "ActivityRef[In, None]", name: str, *, takes: type[In], retry: Retry = QUICK) -> None: ...
    @overload
    def __init__(self, name: str, *, takes: type[In], gives: type[Out], retry: Retry = QUICK) -> None: ...
    def __init__(self, name: str, *, takes: type[In], gives: Any = _NOTHING, retry: Retry = QUICK) -> None:
        for field, value in (("name", name), ("takes", takes), ("gives", gives), ("retry", retry)):
            object.__setattr__(self, field, value)

    def __call__(self, ctx: Context, payload: In) -> Steps[Out]:
        """Run it and wait. Raises StepFailed once it has failed for good."""
        try:
            given = yield ctx.call_activity(self.name, encode(payload), self.retry)
        except ctx.failures as error:
            raise StepFailed(self.name, error) from error
        result: Out = decode(self.gives, given, what=self.name)
        return result


@dataclass(frozen=True, slots=True)
class WorkflowRef(Generic[In]):
    """A workflow. Services start it through WorkflowStarter."""

    name: str
    takes: type[In]


__all__ = ["NEVER", "PATIENT", "QUICK", "ActivityRef", "Context", "Retry", "StepFailed", "Steps", "WorkflowRef"]
