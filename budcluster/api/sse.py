"""Server-sent events (HTML Living Standard, section 9.2): frames, heartbeats, and the answer that carries them."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

from fastapi import Header
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

HEARTBEAT_S: Final = 15.0
HEARTBEAT: Final = b": heartbeat\n\n"
"""A comment: keeps proxies from closing a quiet connection, and shows us that a listener is gone."""

MEDIA_TYPE: Final = "text/event-stream"

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=64,
        description="Id of the last event seen; the stream goes on after it.",
        examples=["41"],
    ),
]


def frame(data: Any, *, event: str, event_id: str) -> bytes:
    """One event; `data` is sent as JSON on one line. `event` and `event_id` must not hold line breaks."""
    text = json.dumps(data, separators=(",", ":"))
    return f"id: {event_id}\nevent: {event}\ndata: {text}\n\n".encode()


async def with_heartbeats(
    frames: AsyncGenerator[bytes, None], every_s: float = HEARTBEAT_S
) -> AsyncGenerator[bytes, None]:
    """The frames, and a heartbeat whenever none came for `every_s` seconds."""
    upcoming: asyncio.Future[bytes] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(frames))
            done, _ = await asyncio.wait({upcoming}, timeout=every_s)
            if not done:
                yield HEARTBEAT
                continue
            finished, upcoming = upcoming, None
            try:
                received = finished.result()
            except StopAsyncIteration:
                return
            yield received
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await frames.aclose()


class EventStream(StreamingResponse):
    """An endless answer. The generator is closed when the client goes away."""

    media_type = MEDIA_TYPE

    def __init__(self, frames: AsyncGenerator[bytes, None], *, heartbeat_s: float = HEARTBEAT_S) -> None:
        # Proxies must neither keep nor collect what they pass on.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self._frames = with_heartbeats(frames, heartbeat_s)
        super().__init__(self._frames, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._frames.aclose()
