"""One transaction a changing request: the route commits, once, before anything is answered.

A router whose routes change things is made with `route_class=TransactionalRoute`. Its handlers take `Write` (see
`api.dependencies`), flush, and never commit. A handler that has slow things to do first takes `Changing` instead and
begins the transaction after them: until then it holds no connection, also where its request carries an
`Idempotency-Key`.
"""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from budcluster.api.edge import Edge, actor_of
from budcluster.api.errors import UnsupportedMediaType
from budcluster.api.idempotency import RememberedRequest
from budcluster.kit.database import WriteSession

_CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Repeated(Exception):
    """The request was answered before; ends the handler that found out."""

    def __init__(self, answer: Response) -> None:
        super().__init__("the request was answered before")
        self.answer = answer


class Transaction:
    """The transaction of one request."""

    def __init__(self, session: WriteSession, remembered: RememberedRequest | None, held: AsyncExitStack) -> None:
        self.session = session
        self._remembered = remembered
        self._held = held
        self._is_begun = False

    async def begin(self) -> WriteSession:
        """The session, once the request is known to be a new one. Raises Repeated."""
        if self._remembered is not None and not self._is_begun:
            if (first := await self._remembered.claim(self.session)) is not None:
                raise Repeated(first)
            self._is_begun = True
        return self.session

    async def hold(self, lock: AbstractAsyncContextManager[object]) -> None:
        """Enter this now and leave it when the transaction is over, whichever way. To be called before `begin`."""
        await self._held.enter_async_context(lock)

    async def close(self, answer: Response) -> None:
        """Keep the answer for a repetition; what never began changed nothing, and is simply done again."""
        if self._remembered is not None and self._is_begun:
            await self._remembered.remember(self.session, answer)


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
            return await _in_one_transaction(request, handle)

        return changing


async def _in_one_transaction(request: Request, handle: Callable[[Request], Coroutine[Any, Any, Response]]) -> Response:
    edge = Edge.of(request)
    remembered = None
    if request.method == "POST":
        remembered = await RememberedRequest.read(
            request,
            actor=actor_of(request).name,
            digest=edge.request_digest,
            keep=timedelta(hours=edge.settings.api.idempotency_hours),
        )
    if remembered is not None:
        # Asked first, so that a repetition does not wait for what the handler does before it begins.
        async with edge.database.reading() as looking:
            first = await remembered.find(looking)
        if first is not None:
            return first
    async with AsyncExitStack() as held, edge.database.writing() as session:
        transaction = Transaction(session, remembered, held)
        request.state.transaction = transaction
        try:
            answer = await handle(request)
        except Repeated as repeated:
            return repeated.answer
        await transaction.close(answer)
        return answer


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType
