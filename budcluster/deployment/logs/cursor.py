"""How far each container's log was read, as the text of an event id, and back. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Self

Source = tuple[str, str]
"""Pod and container."""
_MOST_SOURCES: Final = 64
_ENTRY: Final = re.compile(r"([a-z0-9.-]{1,253})/([a-z0-9-]{1,63})@([0-9T:.Zz+-]{20,40})~(\d{1,9})")
_NANOSECONDS: Final = 9


@dataclass(frozen=True, slots=True)
class Place:
    """A place in one container's log."""

    stamp: str
    """Time of the last line seen, as the cluster wrote it."""
    seen: int
    """Lines seen that have exactly this time: several may share it."""

    def after(self, stamp: str) -> "Place":
        """One line on."""
        return Place(stamp, self.seen + 1 if stamp == self.stamp else 1)

    @property
    def earlier(self) -> str:
        """A `sinceTime` that surely shows what follows, whichever way fractions of a second are cut."""
        moment = datetime.fromisoformat(re.sub(r"\.\d+", "", self.stamp)) - timedelta(seconds=1)
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Skip:
    """Drops the lines that were seen before, from a log that is read anew."""

    place: Place | None
    _same: int = field(default=0, init=False)

    def is_old(self, stamp: str) -> bool:
        """Whether the line with this time was seen; ask for each in order."""
        if self.place is None:
            return False
        if stamp == self.place.stamp and self._same < self.place.seen:
            self._same += 1
            return True
        if nanoseconds(stamp) < nanoseconds(self.place.stamp):
            return True
        self.place = None
        return False


class Cursor:
    """Places in several logs. As text: `pod/container@time~lines`, with commas between."""

    def __init__(self, places: Mapping[Source, Place] | None = None) -> None:
        self.places: dict[Source, Place] = dict(places or {})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        places: dict[Source, Place] = {}
        for entry in text.split(","):
            found = _ENTRY.fullmatch(entry)
            if found is None:
                raise ValueError("not an id of this stream")
            datetime.fromisoformat(found[3])
            places[found[1], found[2]] = Place(found[3], int(found[4]))
        return cls(places)

    def advance(self, source: Source, stamp: str) -> None:
        """One more line was seen."""
        place = self.places.pop(source, None)
        # Taken out and put in again: the oldest come first, and go first.
        self.places[source] = place.after(stamp) if place else Place(stamp, 1)
        if len(self.places) > _MOST_SOURCES:
            del self.places[next(iter(self.places))]

    def __str__(self) -> str:
        return ",".join(f"{pod}/{name}@{place.stamp}~{place.seen}" for (pod, name), place in self.places.items())


def nanoseconds(stamp: str) -> int:
    """An RFC 3339 time as a number. Raises ValueError."""
    whole, _, rest = stamp.partition(".")
    digits = re.match(r"\d*", rest)
    fraction = digits[0] if digits else ""
    moment = datetime.fromisoformat(whole + rest[len(fraction) :])
    return int(moment.timestamp()) * 10**_NANOSECONDS + int(fraction.ljust(_NANOSECONDS, "0")[:_NANOSECONDS] or 0)
