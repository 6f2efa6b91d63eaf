"""Drives an orchestrator without any engine: scripted replies in, recorded calls out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel


class ScriptedFailure(Exception):
    """A reply that fails the step it is given to, as the engine's error of that type would."""

    def __init__(self, error_type: str = "RuntimeError", message: str = "failed") -> None:
        super().__init__(message)
        self.details = SimpleNamespace(error_type=error_type, message=message)


@dataclass
class ScriptedContext:
    """Plays `Context`: each engine task is the tuple (name, payload), and every one is recorded."""

    failures: tuple[type[BaseException], ...] = (ScriptedFailure,)
    patches: frozenset[str] = frozenset()
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def is_patched(self, name: str) -> bool:
        return name in self.patches

    def call_activity(self, name: str, payload: Any, _retry: object) -> tuple[str, Any]:
        self.calls.append((name, payload))
        return self.calls[-1]


def drive(orchestrator: Callable[..., Any], payload: BaseModel, replies: Sequence[Any]) -> tuple[Any, ScriptedContext]:
    """Feed the replies in order. The result is the orchestrator's, or None when it waits for more replies."""
    context = ScriptedContext()
    steps = orchestrator(context, payload)
    try:
        next(steps)
        for reply in replies:
            steps.throw(reply) if isinstance(reply, BaseException) else steps.send(reply)
    except StopIteration as end:
        return end.value, context
    return None, context


def assert_replays(orchestrator: Callable[..., Any], payload: BaseModel, replies: Sequence[Any]) -> None:
    """Any part of the replies from the start leads to the same first calls: the orchestrator is deterministic."""
    _, whole = drive(orchestrator, payload, replies)
    for length in range(len(replies)):
        _, part = drive(orchestrator, payload, replies[:length])
        assert part.calls == whole.calls[: len(part.calls)]
