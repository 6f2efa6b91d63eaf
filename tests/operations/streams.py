"""Reads server-sent events as a browser does."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    number: int
    type: str
    data: dict[str, Any]


async def events_of(stream: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The events in a stream of bytes; comments are left out."""
    waiting = b""
    async for content in stream:
        *frames, waiting = (waiting + content).split(b"\n\n")
        for frame in frames:
            if not frame.startswith(b":"):
                fields = dict(line.split(": ", 1) for line in frame.decode().split("\n"))
                yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
