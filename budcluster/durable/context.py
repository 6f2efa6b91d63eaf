"""What an orchestrator may use: activities, and branches on what they gave. Deterministic; the SDK stays behind it."""

from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

Out = TypeVar("Out")

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
    """One instance, as its orchestrator sees it. Orchestrators call activities by their refs."""

    @property
    def failures(self) -> tuple[type[BaseException], ...]:
        """The engine's own errors of a failed activity; their `details` have `error_type` and `message`."""

    def is_patched(self, name: str) -> bool:
        """False for instances that passed this point before the code knew the patch: keep their old way for them."""

    def call_activity(self, name: str, payload: Any, retry: Retry) -> Any:
        """The engine's task of an activity call."""


class StepFailed(Exception):
    """An activity failed for good. `error_type` is the class name of what it raised."""

    def __init__(self, step: str, error: BaseException) -> None:
        details = getattr(error, "details", None)
        self.step = step
        self.error_type: str = getattr(details, "error_type", type(error).__name__)
        self.message: str = getattr(details, "message", str(error))
        super().__init__(f"{step}: {self.message}")
