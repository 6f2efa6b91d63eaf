"""What one instance may use, and how often a piece of work is tried before it is given up."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

MIB: Final = 1024 * 1024


class PayloadTooLarge(ValueError):
    """An input, result or event is over the limit; the message says which and by how much."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} has {size} bytes and at most {limit} are allowed; "
            "keep large data in the database and pass its id, or raise the payload limit."
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """All sizes in bytes. A limit that is met fails that one instance or activity, nothing else."""

    payload_bytes: int = 256 * 1024
    """One input, result, event or custom status."""
    history_bytes: int = 2 * MIB
    """All events of one generation of an instance; every turn replays them."""
    deliveries: int = 10
    """How often an activity or a turn is handed to a worker that then dies, before it is failed."""
    turns_in_flight: int = 64
    """Turns this process holds at once; more are left to other replicas."""
    activities_in_flight: int = 256
    """Activities this process holds at once; they may run for hours, so this is generous."""
    silence: timedelta = timedelta(seconds=30)
    """How long a process may be silent before PostgreSQL ends its session and others take its work."""
    keep_finished: timedelta = timedelta(days=30)
    """How long the history of a finished instance stays readable."""

    def check(self, what: str, value: str) -> None:
        """Raise PayloadTooLarge when `value` is over the limit of one payload."""
        # UTF-8 has at most four bytes a character: only long texts need counting.
        if len(value) * 4 <= self.payload_bytes:
            return
        size = len(value.encode())
        if size > self.payload_bytes:
            raise PayloadTooLarge(what, size, self.payload_bytes)
