"""API tokens: their text, and making, listing and revoking them.

The text is `bud_`, 30 random letters and digits (178 bits), and a checksum of 6, so that a mistyped or cut one is told
apart without a look at the database. Only a keyed hash is stored.
"""

import re
import secrets
import string
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import func, select, update

from budcluster.api.models import ApiToken, Role
from budcluster.kit.database import ReadSession, WriteSession
from budcluster.kit.errors import Conflict, Invalid, NotFound

TokenDigest = Callable[[str], bytes]
"""Keyed hash of a token's text. Without the key a copy of the table opens nothing and allows no guessing."""

PREFIX: Final = "bud_"
_ALPHABET: Final = string.digits + string.ascii_letters
_RANDOM_LENGTH: Final = 30
_CHECKSUM_LENGTH: Final = 6
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class TokenNameTaken(Conflict):
    """A token with this name exists or existed. Names are never used twice: the audit trail stays unambiguous."""

    title = "Token name is taken"


class TokenNameUnfit(Invalid):
    """A token's name stands in logs and in the audit trail: letters, digits, dots, dashes and underscores only."""

    title = "Token name is not usable"


class TokenNotFound(NotFound):
    """There is no token with this name. `budcluster tokens list` shows all."""

    title = "Token not found"


def new_token() -> str:
    """A fresh token's text."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return PREFIX + body + _checksum(body)


def is_well_formed(token: str) -> bool:
    """Whether a text can be a token at all."""
    body = token.removeprefix(PREFIX)
    if not token.startswith(PREFIX) or len(body) != _RANDOM_LENGTH + _CHECKSUM_LENGTH or not body.isascii():
        return False
    return secrets.compare_digest(_checksum(body[:_RANDOM_LENGTH]), body[_RANDOM_LENGTH:])


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        value, rest = divmod(value, len(_ALPHABET))
        digits += _ALPHABET[rest]
    return digits


async def create_token(
    session: WriteSession, digest: TokenDigest, *, name: str, role: Role, expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """A new token and its text, which is shown once and known nowhere afterwards.

    Raises TokenNameTaken and TokenNameUnfit.
    """
    if not _NAME.fullmatch(name):
        raise TokenNameUnfit("Choose a name of 1 to 63 letters, digits, dots, dashes and underscores.")
    if (await session.scalar(select(ApiToken.id).where(ApiToken.name == name))) is not None:
        raise TokenNameTaken(f"A token named {name} exists or existed; choose another name.")
    text = new_token()
    token = ApiToken(name=name, role=role, digest=digest(text), expires_at=expires_at)
    session.add(token)
    await session.flush()
    return token, text


async def list_tokens(session: ReadSession) -> Sequence[ApiToken]:
    """All tokens, revoked ones too, newest first."""
    return (await session.scalars(select(ApiToken).order_by(ApiToken.created_at.desc(), ApiToken.id))).all()


async def revoke_token(session: WriteSession, *, name: str) -> ApiToken:
    """End a token. Replicas notice within seconds. Safe to repeat. Raises TokenNotFound."""
    token = (await session.scalars(select(ApiToken).where(ApiToken.name == name).with_for_update())).one_or_none()
    if token is None:
        raise TokenNotFound(f"There is no token named {name}; `budcluster tokens list` shows all.")
    if token.revoked_at is None:
        token.revoked_at = func.now()
        await session.flush()
        await session.refresh(token)
    return token


async def note_usage(session: WriteSession, used: dict[bytes, datetime]) -> None:
    """Write down when tokens were last used, by digest."""
    for digest, at in used.items():
        await session.execute(update(ApiToken).where(ApiToken.digest == digest).values(last_used_at=at))
