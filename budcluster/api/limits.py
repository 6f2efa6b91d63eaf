"""What the edge refuses before anything else looks at a request: heads and bodies too large, and NUL bytes."""

import contextlib
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from budcluster.api.errors import BodyTooLarge, HeadTooLarge, MalformedRequest
from budcluster.api.problems import render
from budcluster.api.validation import field_problem
from budcluster.kit.errors import DomainError, Invalid

_MAX_HEAD_BYTES: Final = 64 * 1024
"""Bytes of path, query and headers: several times what cookies and tokens of real clients need."""


class Limits:
    """Reads a body no further than `max_body_bytes`, whatever `Content-Length` claims."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_head(scope)
        except DomainError as error:
            await render(error, scope)(scope, receive, send)
            return
        seen = 0
        answered = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._max:
                    raise BodyTooLarge(self._max)
            return message

        async def ours_first(message: Message) -> None:
            # A framework that takes our error for unreadable JSON must not answer in our place.
            nonlocal answered
            if seen <= self._max or answered:
                answered = True
                await send(message)

        with contextlib.suppress(BodyTooLarge):
            await self._app(scope, counted, ours_first)
        if seen > self._max and not answered:
            await render(BodyTooLarge(self._max), scope)(scope, receive, send)

    def _check_head(self, scope: Scope) -> None:
        head = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if head + sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEAD_BYTES:
            raise HeadTooLarge(_MAX_HEAD_BYTES)
        if b"\0" in unquote_to_bytes(scope.get("raw_path") or scope["path"].encode()):
            raise Invalid("The path holds a NUL byte, which no name has.", errors=[_nul("path")])
        if b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
            raise Invalid("The query holds a NUL byte, which no value has.", errors=[_nul("query")])
        length = Headers(scope=scope).get("content-length")
        if length is None:
            return
        if not (length.isascii() and length.isdigit()):
            raise MalformedRequest("Content-Length is not a number.")
        if len(length) > 18 or int(length) > self._max:
            raise BodyTooLarge(self._max)


def _nul(place: str) -> dict[str, str]:
    return field_problem((place,), "nul_byte", "must not hold NUL bytes")
