"""How long to wait before something that should have lasted is tried again."""

import time
from collections.abc import Callable


class Pauses:
    """Grow with every try in a row that did not hold as long as the pause before it; the last one repeats.

    Whoever answers at first and breaks soon must not be asked everything again and again.
    """

    def __init__(self, lengths_s: tuple[float, ...], now: Callable[[], float] = time.monotonic) -> None:
        self._lengths_s = lengths_s
        self._now = now
        self._held_since: float | None = None
        self._failures = 0

    def hold(self) -> None:
        """From now on the present try holds; what was done to get there, however slow, does not count."""
        self._held_since = self._now()

    def next_s(self) -> float:
        """Seconds until the next try, now that the present one has ended."""
        held_s = 0.0 if self._held_since is None else self._now() - self._held_since
        self._held_since = None
        self._failures = 0 if held_s > self._length_s else self._failures + 1
        return self._length_s

    @property
    def _length_s(self) -> float:
        return self._lengths_s[min(self._failures, len(self._lengths_s) - 1)]
