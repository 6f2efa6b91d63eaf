"""Containers that ended with a failure, and the end of what they said."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from budcluster.kit.database import Base
from budcluster.kit.sealed import Sealed, SealedColumn


class DeploymentAttempt(Base):
    """One run of a container that ended with a failure. The oldest of a deployment go."""

    __tablename__ = "deployment_attempts"
    __table_args__ = (
        UniqueConstraint("deployment_id", "pod_uid", "container", "restart"),
        Index("ix_deployment_attempts_deployment_id_kept_at", "deployment_id", "kept_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    deployment_id: Mapped[UUID] = mapped_column(ForeignKey("deployments.id", ondelete="CASCADE"))
    pod: Mapped[str] = mapped_column(String(253))
    pod_uid: Mapped[str] = mapped_column(String(64))
    container: Mapped[str] = mapped_column(String(63))
    restart: Mapped[int]
    """0 for the container's first run."""
    exit_code: Mapped[int]
    reason: Mapped[str] = mapped_column(String(128))
    finding: Mapped[str | None] = mapped_column(String(64))
    """Type of the diagnosis."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    lines: Mapped[int]
    log: Mapped[Sealed] = mapped_column(SealedColumn)
    """Bulk data; masked before it was sealed."""
    kept_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
