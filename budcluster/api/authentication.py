"""Who makes a request, and whether it may.

Three ways to be somebody: a bearer token, Dapr's app token (then the actor is the calling app), or, while neither kind
exists and the service listens on loopback only, nobody in particular. As soon as one token was ever made, or
`APP_API_TOKEN` is set, every route but health, documentation and the problem pages needs one: revoking the last token
does not open the door.

Tokens are looked up in a snapshot of the table that is at most `SNAPSHOT_AGE_S` old, so a request costs no query.
"""

import asyncio
import hmac
import ipaddress
import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog
from pydantic import SecretStr
from sqlalchemy import select
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from budcluster.api.edge import Actor
from budcluster.api.errors import InvalidToken, MissingCredential, RoleTooWeak
from budcluster.api.models import ApiToken, Role
from budcluster.api.problems import render
from budcluster.api.tokens import TokenDigest, is_well_formed, note_usage
from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import Database
from budcluster.kit.errors import DomainError

SNAPSHOT_AGE_S: Final = 5.0
"""Seconds after which a revoked token is refused at the latest."""
_UNKNOWN_TOKEN_AGE_S: Final = 1.0
"""A token that is not in a snapshot older than this may be a new one: look again."""
_APP_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ANONYMOUS: Final = Actor("anonymous", Role.MANAGE)

PUBLIC_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/problems"})


def is_public(path: str) -> bool:
    """Whether a path is open to everybody."""
    return path in PUBLIC_PATHS or path.startswith("/problems/")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0].lower()


def listening_allowed(host: str, *, has_credentials: bool, anonymous_remote: bool) -> bool:
    """Whether the service may listen on `host`: beyond loopback only when callers must prove who they are."""
    return is_loopback(host) or has_credentials or anonymous_remote


@dataclass(frozen=True)
class _KnownToken:
    name: str
    role: Role
    expires_at: datetime | None
    is_revoked: bool


@dataclass
class Authenticator:
    """Decides. One per process."""

    database: Database
    digest: TokenDigest
    app_token: SecretStr | None = None
    allow_anonymous: bool = True
    """Whether requests without a credential pass while no credential exists anywhere."""
    only_loopback_names: bool = False
    """Whether such requests must also name this machine in their Host: a web page that had its own name point to
    127.0.0.1 (DNS rebinding) could otherwise order around in the browser of whoever tries the service out."""
    clock: Clock = field(default_factory=SystemClock)
    _snapshot: dict[bytes, _KnownToken] = field(default_factory=dict, repr=False)
    _taken_at: float = field(default=float("-inf"), repr=False)
    _refreshing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _used: dict[bytes, datetime] = field(default_factory=dict, repr=False)

    async def identify(self, headers: Headers) -> Actor:
        """The actor behind a request. Raises MissingCredential, InvalidToken, DatabaseUnavailable."""
        sent = headers.get("dapr-api-token")
        if sent is not None and self.app_token is not None:
            if not hmac.compare_digest(sent.encode(), self.app_token.get_secret_value().encode()):
                raise InvalidToken
            caller = headers.get("dapr-caller-app-id", "")
            return Actor(f"app:{caller if _APP_ID.fullmatch(caller) else 'unknown'}", Role.MANAGE)
        scheme, _, text = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._by_token(text.strip())
        if not self.allow_anonymous:
            raise MissingCredential("Send a token: Authorization: Bearer …; `budcluster tokens create` makes one.")
        await self._refresh(SNAPSHOT_AGE_S)
        if self._snapshot or self.app_token is not None:
            raise MissingCredential("Send a token: Authorization: Bearer …; `budcluster tokens create` makes one.")
        if self.only_loopback_names and not is_loopback(_host_name(headers.get("host", ""))):
            raise MissingCredential("Without a token this service is called by the name of its own machine: 127.0.0.1.")
        return _ANONYMOUS

    async def _by_token(self, text: str) -> Actor:
        if not is_well_formed(text):
            raise InvalidToken
        digest = self.digest(text)
        await self._refresh(SNAPSHOT_AGE_S)
        if digest not in self._snapshot:
            await self._refresh(_UNKNOWN_TOKEN_AGE_S)
        token = self._snapshot.get(digest)
        now = self.clock.now()
        if token is None or token.is_revoked or (token.expires_at is not None and token.expires_at <= now):
            raise InvalidToken
        self._used[digest] = now
        return Actor(f"token:{token.name}", token.role)

    async def _refresh(self, max_age_s: float) -> None:
        if time.monotonic() - self._taken_at < max_age_s:
            return
        async with self._refreshing:
            if time.monotonic() - self._taken_at < max_age_s:
                return
            async with self.database.reading() as session:
                tokens = (await session.scalars(select(ApiToken))).all()
            self._snapshot = {
                t.digest: _KnownToken(t.name, t.role, t.expires_at, t.revoked_at is not None) for t in tokens
            }
            self._taken_at = time.monotonic()

    async def write_down_usage(self) -> None:
        """Store when tokens were last used. Called about once a minute, off the requests' path."""
        used, self._used = self._used, {}
        if used:
            async with self.database.writing() as session:
                await note_usage(session, used)


class Authentication:
    """Middleware: finds out who calls, refuses who may not, and leaves the actor in `request.state.actor`."""

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_public(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            actor = await self._authenticator.identify(Headers(scope=scope))
            if actor.role is Role.VIEW and scope["method"] not in _READING:
                raise RoleTooWeak
        except DomainError as error:
            await render(error, scope)(scope, receive, send)
            return
        scope.setdefault("state", {})["actor"] = actor
        structlog.contextvars.bind_contextvars(actor=actor.name)
        await self._app(scope, receive, send)
