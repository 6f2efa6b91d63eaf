"""Why something failed, as people and programs should read it: a stable type, a sentence, what to do next, the step."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from budcluster.kit.errors import DomainError
from budcluster.operations.contracts import Ending

_DETAIL_LIMIT: Final = 2000
_RETRY: Final = "Retry the operation; if it fails again, read its log lines."


@dataclass(frozen=True)
class Cause:
    """The error of an operation or a step."""

    type: str
    """Stable, kebab case: the fact's name, for example `quota-exceeded`."""
    detail: str
    next_step: str
    step: str | None = None

    def and_left(self, left: Sequence[str]) -> "Cause":
        """The same with the work named that could not be taken back."""
        if not left:
            return self
        note = f"Not undone, look at it by hand: {', '.join(left)}."
        return replace(self, next_step=f"{note} {self.next_step}")

    def facts(self) -> dict[str, Any]:
        """As stored in a row."""
        return asdict(self)


def cause_of(error: BaseException, *, step: str | None, mask: Callable[[str], str]) -> Cause:
    """The cause that an exception tells. A public sentence is read from `detail`, advice from `next_step`.

    An error that was raised `from` another one without a type of its own (NonRetryableError) is named for that one.
    """
    fact = error.__cause__ if type(error).__name__ == "NonRetryableError" and error.__cause__ is not None else error
    detail = error.detail if isinstance(error, DomainError) else str(error)
    advice = getattr(error, "next_step", None) or getattr(fact, "next_step", None)
    return Cause(
        type=_slug(type(fact).__name__),
        detail=mask(detail or f"The step ended with {type(error).__name__}.")[:_DETAIL_LIMIT],
        next_step=str(advice) if advice else _RETRY,
        step=step,
    )


def from_failure(ending: Ending) -> Cause:
    """The cause of a step that could not note it itself: its process died, or its engine gave it up."""
    return Cause(type=_slug(ending.type), detail=ending.detail[:_DETAIL_LIMIT], next_step=_RETRY, step=ending.step)


WORKFLOW_LOST: Final = Cause(
    type="workflow-lost",
    detail="The workflow of this operation has ended or vanished without saying how.",
    next_step="Retry the operation: steps that were done are kept.",
)


def _slug(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
