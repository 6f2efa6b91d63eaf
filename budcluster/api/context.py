"""What surrounds one request: its id, trace, log line and metrics, and the answer when all else failed."""

import re
import secrets
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)

_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: counted, not logged."""


_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def request_id() -> str | None:
    """Id of the request being served, None outside of one."""
    return _request_id.get()


def trace_id(traceparent: str | None) -> str | None:
    """The caller's trace (W3C Trace Context); None where the header is absent or malformed, as 3.2.2 asks."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match is None:
        return None
    version, trace, parent, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not trace.strip("0") or not parent.strip("0"):
        return None
    return trace


Observer = Callable[[str, str, int, float], None]
"""Told of every request: method, route template, status, seconds."""


class RequestContext:
    """Outermost middleware."""

    def __init__(self, app: ASGIApp, *, observe: Observer, on_error: Callable[[Exception, Scope], ASGIApp]) -> None:
        self._app = app
        self._observe = observe
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        identity = asked if _SANE_ID.fullmatch(asked) else secrets.token_hex(12)
        trace = trace_id(headers.get("traceparent"))
        _request_id.set(identity)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=identity, **({"trace_id": trace} if trace else {}))
        await self._serve(scope, receive, send, identity)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, identity: str) -> None:
        started = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = identity
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            if status:
                log.warning("request.broken_off", exc_info=error)
            else:
                await self._on_error(error, scope)(scope, receive, answer)
        seconds = time.perf_counter() - started
        template = _template(scope)
        self._observe(scope["method"], template, status or 499, seconds)
        if scope["path"] not in _QUIET:
            log.info(
                "request.answered",
                method=scope["method"],
                route=template,
                status=status or 499,
                ms=round(seconds * 1000, 1),
            )


def _template(scope: Scope) -> str:
    """The route as declared, so that neither metrics nor log grow with ids or with what strangers try."""
    path: str = getattr(scope.get("route"), "path", "unmatched")
    return path
