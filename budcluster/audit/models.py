"""Audit table."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from budcluster.kit.database import Base


class AuditEvent(Base):
    """One thing that somebody did or tried. Rows are only ever added."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_at_id", "at", "id"),
        Index("ix_audit_events_subject", "subject_type", "subject_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    actor: Mapped[str] = mapped_column(String(253))
    """`token:<name>`, `app:<dapr app id>`, `system` or `anonymous`."""
    action: Mapped[str] = mapped_column(String(64))
    """`noun.past_verb`, for example `cluster.registered` or `credential.opened`."""
    subject_type: Mapped[str] = mapped_column(String(32))
    subject_id: Mapped[UUID | None]
    subject_name: Mapped[str | None] = mapped_column(String(253))
    """Kept because the subject itself may be gone."""
    outcome: Mapped[str] = mapped_column(String(16))
    """`succeeded`, `refused` or `failed`."""
    request_id: Mapped[str | None] = mapped_column(String(64))
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Small named facts; never a secret."""
    once: Mapped[str | None] = mapped_column(String(255), unique=True)
    """Names what is recorded once only, however often it happens: opening a secret within one operation."""
