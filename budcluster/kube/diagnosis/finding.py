"""A cause that was found."""

from dataclasses import dataclass
from enum import IntEnum


class Weight(IntEnum):
    """How much a finding explains: of several the heaviest is shown."""

    SYMPTOM = 1
    """Something is wrong, and this is how it shows."""
    LIKELY = 2
    CAUSE = 3
    """This is it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause with its evidence."""

    type: str
    """Stable slug that programs switch on."""
    detail: str
    """What is wrong, for a person."""
    fix: str
    """What to do next."""
    weight: Weight
    pod: str = ""
    container: str | None = None
    exit_code: int | None = None
    lines: tuple[str, ...] = ()
    """The lines that say so, masked."""
    suggestion: dict[str, int | str] | None = None
    """Values that would help, for example `{"max_model_len": 74752}`."""
