"""Waiting until an effect is seen. What was seen last goes into the failure; nothing sleeps for a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 60.0
_PAUSE_S = 0.02


async def until(look: Callable[[], Awaitable[T]], holds: Callable[[T], object] = bool) -> T:
    """Look again and again until it holds."""
    end = time.monotonic() + DEADLINE_S
    while True:
        seen = await look()
        if holds(seen):
            return seen
        assert time.monotonic() < end, f"after {DEADLINE_S} s still: {seen!r}"
        await asyncio.sleep(_PAUSE_S)


async def until_true(is_true: Callable[[], object]) -> None:
    """The same for what can be seen at once."""

    async def look() -> object:
        return is_true()

    await until(look)


def eventually(is_true: Callable[[], object], *, within_s: float = DEADLINE_S) -> None:
    """The same in a thread of its own, where nothing else has to go on."""
    end = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < end, f"not seen within {within_s} s"
        time.sleep(_PAUSE_S)
