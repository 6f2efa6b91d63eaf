"""Tables of the HTTP edge: tokens and remembered answers."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from budcluster.kit.database import Base, text_enum


class Role(StrEnum):
    """What a token may do."""

    VIEW = "view"
    MANAGE = "manage"


class ApiToken(Base):
    """A bearer token, kept as a keyed hash only."""

    __tablename__ = "api_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    role: Mapped[Role] = mapped_column(text_enum(Role))
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """What a creating POST was answered, so that its repetition gets the same answer."""

    __tablename__ = "idempotency_keys"

    actor: Mapped[str] = mapped_column(String(253), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    """Keyed hash of method, path and body: the same key with another request is refused."""
    status: Mapped[int | None]
    """None while the first request is still at work."""
    headers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"), index=True)
