"""The cluster table and its words."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from budcluster.kit.database import Base, Versioned, text_enum
from budcluster.kit.sealed import Sealed, SealedColumn


class ClusterProvider(StrEnum):
    """Where a cluster runs."""

    AWS_EKS = "AWS_EKS"
    AZURE_AKS = "AZURE_AKS"
    ON_PREMISES = "ON_PREMISES"


class ClusterOrigin(StrEnum):
    """Who made it. Only what this service provisioned is ever destroyed by it."""

    PROVISIONED = "PROVISIONED"
    ADOPTED = "ADOPTED"


class ClusterStatus(StrEnum):
    """Where a cluster stands in its life; the legal moves are in `lifecycle`."""

    PROVISIONING = "PROVISIONING"
    READY = "READY"
    ERROR = "ERROR"
    DELETING = "DELETING"


class ClusterHealth(StrEnum):
    """How a READY cluster does just now. Health is not status: it comes and goes without anybody's help."""

    UNKNOWN = "UNKNOWN"
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNREACHABLE = "UNREACHABLE"


class Cluster(Versioned, Base):
    """One Kubernetes cluster."""

    __tablename__ = "clusters"
    __table_args__ = (
        UniqueConstraint("name"),
        # Two rows are the same cluster when the uid of the namespace kube-system is the same.
        UniqueConstraint("system_uid"),
        UniqueConstraint("server"),
        CheckConstraint("node_count >= 0 and gpu_count >= 0", name="counts"),
        Index("ix_clusters_created_at_id", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(63))
    provider: Mapped[ClusterProvider] = mapped_column(text_enum(ClusterProvider))
    origin: Mapped[ClusterOrigin] = mapped_column(text_enum(ClusterOrigin))
    region: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[ClusterStatus] = mapped_column(text_enum(ClusterStatus), index=True)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The caller's own key-value pairs, for filters."""
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Choices of the caller that later steps honour: GPU sharing mode, whether add-ons are managed."""

    kubeconfig_encrypted: Mapped[Sealed | None] = mapped_column(SealedColumn)
    """The credential in use: a minimal kubeconfig, sealed."""
    server: Mapped[str | None] = mapped_column(String(2048))
    """Normalised URL of the API server."""
    system_uid: Mapped[str | None] = mapped_column(String(64))
    kubernetes_version: Mapped[str | None] = mapped_column(String(64))

    node_count: Mapped[int] = mapped_column(default=0)
    gpu_count: Mapped[int] = mapped_column(default=0)
    """Physical devices, never shares of them."""
    hardware_profile: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_raiseload=True)
    """Two kilobytes a node: whoever needs it selects it."""
    hardware_detected_at: Mapped[datetime | None]
    adoption_report: Mapped[dict[str, Any] | None]

    health: Mapped[ClusterHealth] = mapped_column(text_enum(ClusterHealth), default=ClusterHealth.UNKNOWN)
    health_reasons: Mapped[list[Any]] = mapped_column(default=list)
    health_since: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    """`{type, detail, step, since}` while status is ERROR."""
