"""Times as Kubernetes writes them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def moment(stamp: object) -> datetime | None:
    """The time that a stamp names; None for what is none, or names no zone."""
    try:
        found = datetime.fromisoformat(str(stamp))
    except ValueError:
        return None
    return found if found.tzinfo else None


def last_seen(event: Mapping[str, Any]) -> datetime | None:
    """When what an event tells of was seen last; None when it does not say."""
    series = event.get("series") or {}
    stamps = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
    return max((at for stamp in stamps if (at := moment(stamp))), default=None)
