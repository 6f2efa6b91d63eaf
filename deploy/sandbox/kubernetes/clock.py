"""The cluster's own time, which may run faster than the wall clock."""

import asyncio
import time
from datetime import UTC, datetime, timedelta


class Clock:
    """Virtual time that starts at the real one and runs `factor` times as fast."""

    def __init__(self, *, factor: float = 1.0) -> None:
        if factor <= 0:
            raise ValueError("The clock factor must be greater than 0.")
        self.factor = factor
        self._epoch = datetime.now(UTC)
        self._started = time.monotonic()

    def now(self) -> datetime:
        """The current virtual time in UTC."""
        return self._epoch + timedelta(seconds=(time.monotonic() - self._started) * self.factor)

    async def sleep(self, seconds: float) -> None:
        """Wait for that many virtual seconds."""
        await asyncio.sleep(seconds / self.factor)


def timestamp(moment: datetime) -> str:
    """RFC 3339 with whole seconds, as metav1.Time is written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    """Read what `timestamp` writes, or the same with fractions of a second. Raises ValueError for anything else."""
    return datetime.fromisoformat(text)
