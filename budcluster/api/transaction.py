"""One transaction a changing request: the route commits, once, before anything is answered.

A router whose routes change things is made with `route_class=TransactionalRoute`. Its handlers take `Write` (see
`api.dependencies`), flush, and never commit. What must happen only when the change is safe, such as starting a
workflow, is handed to `AfterCommit`.
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import structlog
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from budcluster.api.edge import Edge, actor_of
from budcluster.api.errors import UnsupportedMediaType
from budcluster.api.idempotency import RememberedRequest
from budcluster.kit.database import WriteSession

log = structlog.get_logger(__name__)

_CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass
class Transaction:
    """The open transaction of one request, and what follows its commit."""

    session: WriteSession
    afterwards: list[Callable[[], Awaitable[object]]] = field(default_factory=list)


class TransactionalRoute(APIRoute):
    """Opens a transaction around each changing request, commits when it was answered with success, else rolls back."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if not _CHANGING & (self.methods or set()):
            return handle
        reads_body = self.body_field is not None

        async def changing(request: Request) -> Response:
            if reads_body and await request.body():
                _require_json(request)
            transaction, answer = await _in_one_transaction(request, handle)
            for step in transaction.afterwards:
                await _run(step)
            return answer

        return changing


async def _in_one_transaction(
    request: Request, handle: Callable[[Request], Coroutine[Any, Any, Response]]
) -> tuple[Transaction, Response]:
    edge = Edge.of(request)
    remembered = None
    if request.method == "POST":
        remembered = await RememberedRequest.read(
            request,
            actor=actor_of(request).name,
            digest=edge.request_digest,
            keep=timedelta(hours=edge.settings.api.idempotency_hours),
        )
    async with edge.database.writing() as session:
        transaction = Transaction(session)
        request.state.transaction = transaction
        if remembered is not None and (first := await remembered.claim(session)) is not None:
            return transaction, first
        answer = await handle(request)
        if remembered is not None:
            await remembered.remember(session, answer)
        return transaction, answer


async def _run(step: Callable[[], Awaitable[object]]) -> None:
    try:
        await step()
    except Exception as error:
        log.warning("request.afterwards_failed", exc_info=error)


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType
