"""The table of sealed secrets."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from budcluster.kit.database import Base, Versioned, text_enum
from budcluster.kit.sealed import Sealed, SealedColumn


class CredentialPurpose(StrEnum):
    """What a secret is for. A secret is only ever opened for its purpose."""

    ONBOARDING = "ONBOARDING"
    """A kubeconfig as uploaded (rebuilt); replaced by the service's own credential and then forgotten."""
    AWS = "AWS"
    AZURE = "AZURE"
    HUGGING_FACE = "HUGGING_FACE"
    REGISTRY = "REGISTRY"


class Credential(Versioned, Base):
    """One sealed secret with what may be known about it."""

    __tablename__ = "credentials"
    __table_args__ = (
        Index("ix_credentials_created_at_id", "created_at", "id"),
        # A secret that serves several things is stored once; what belongs to one cluster alone may repeat.
        Index("uq_credentials_fingerprint", "fingerprint", unique=True, postgresql_where=text("cluster_id is null")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    purpose: Mapped[CredentialPurpose] = mapped_column(text_enum(CredentialPurpose), index=True)
    cluster_id: Mapped[UUID | None] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), index=True)
    """The cluster it belongs to alone, if any."""
    secret: Mapped[Sealed] = mapped_column(SealedColumn)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Keyed hash of the secret: equal secrets are recognised, and it tells nothing about them."""
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
