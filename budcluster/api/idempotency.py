"""`Idempotency-Key`: a creating request that is repeated gets the answer of the first one.

The claim of the key, what the request changes and the remembered answer are one transaction. So there is never a change
without its answer or an answer without its change; a crash in between leaves neither, and the repetition simply runs.
A second request with the same key waits at the claim until the first has committed, for `_PATIENCE` at most. Answers
that are errors are not remembered: nothing was changed, and the repetition may well succeed.

Answers of creating routes never carry a secret, so neither do remembered ones.
"""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from budcluster.api.errors import IdempotencyKeyReused, MalformedRequest, RequestInProgress
from budcluster.api.models import IdempotencyKey
from budcluster.kit.database import ReadSession, WriteSession

HEADER: Final = "Idempotency-Key"
_PATIENCE: Final = "2s"
_LOCK_NOT_AVAILABLE: Final = "55P03"
_FORGOTTEN_HEADERS: Final = frozenset({"content-length", "x-request-id"})


class RememberedRequest:
    """One request that carries a key."""

    def __init__(self, *, actor: str, key: str, digest: bytes, keep: timedelta) -> None:
        self._actor = actor
        self._key = key
        self._digest = digest
        self._keep = keep

    @classmethod
    async def read(
        cls, request: Request, *, actor: str, digest: Callable[[bytes], bytes], keep: timedelta
    ) -> "RememberedRequest | None":
        """The request's key and what it asks for; None without a key. Raises MalformedRequest for a strange key.

        `digest` must be keyed: a body may carry a secret, and a plain hash would let it be guessed.
        """
        key = request.headers.get(HEADER)
        if key is None:
            return None
        if not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
            raise MalformedRequest(f"{HEADER} must be 1 to 255 printable ASCII characters; a UUID serves well.")
        asked = [request.method, request.url.path, request.url.query]
        whole = json.dumps(asked).encode() + await request.body()
        return cls(actor=actor, key=key, digest=digest(whole), keep=keep)

    async def find(self, session: ReadSession) -> Response | None:
        """The answer of the request that had the key first, if it was answered. Raises IdempotencyKeyReused."""
        fresh = IdempotencyKey.created_at >= func.now() - self._keep
        row = (await session.scalars(select(IdempotencyKey).where(*self._mine(), fresh))).one_or_none()
        return self._replay(row) if row is not None and row.status is not None else None

    async def claim(self, session: WriteSession) -> Response | None:
        """Take the key for this transaction, or give the answer of the request that had it first.

        Raises IdempotencyKeyReused, and RequestInProgress when the first one takes longer than a moment.
        """
        await session.execute(
            delete(IdempotencyKey).where(*self._mine(), IdempotencyKey.created_at < func.now() - self._keep)
        )
        row = {"actor": self._actor, "key": self._key, "request_digest": self._digest, "headers": {}}
        claim = insert(IdempotencyKey).values(row).on_conflict_do_nothing().returning(IdempotencyKey.key)
        await session.execute(text(f"set local lock_timeout = '{_PATIENCE}'"))
        try:
            is_first = (await session.execute(claim)).scalar() is not None
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise RequestInProgress from error
            raise
        await session.execute(text("set local lock_timeout = default"))
        return None if is_first else await self._first_answer(session)

    async def remember(self, session: WriteSession, answer: Response) -> None:
        """Keep the answer; it is committed with what the request changed."""
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in _FORGOTTEN_HEADERS}
        await session.execute(
            update(IdempotencyKey)
            .where(*self._mine())
            .values(status=answer.status_code, headers=headers, body=bytes(answer.body))
        )

    async def _first_answer(self, session: WriteSession) -> Response:
        row = (await session.scalars(select(IdempotencyKey).where(*self._mine()))).one_or_none()
        if row is None or row.status is None:
            raise RequestInProgress
        return self._replay(row)

    def _replay(self, row: IdempotencyKey) -> Response:
        if row.request_digest != self._digest:
            raise IdempotencyKeyReused
        answer = Response(row.body, status_code=row.status or 200)
        MutableHeaders(raw=answer.raw_headers).update(row.headers)
        answer.headers["Idempotent-Replay"] = "true"
        return answer

    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        return (IdempotencyKey.actor == self._actor, IdempotencyKey.key == self._key)


async def forget_old_answers(session: WriteSession, keep: timedelta) -> None:
    """Delete the answers that no client repeats any more."""
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - keep))
