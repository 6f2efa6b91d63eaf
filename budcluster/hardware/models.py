"""What the service knows of the add-ons in each cluster."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from budcluster.kit.database import Base, text_enum


class AddonName(StrEnum):
    """What the service can put into a cluster."""

    PROMETHEUS = "prometheus"
    NFD = "nfd"
    GPU_OPERATOR = "gpu-operator"
    HAMI = "hami"


class AddonOwner(StrEnum):
    """Who installed an add-on. What others installed is used and never touched."""

    OURS = "OURS"
    OTHER = "OTHER"


class AddonState(StrEnum):
    """How an add-on does."""

    READY = "READY"
    FAILED = "FAILED"
    """It could not be installed or does not work; the cluster goes on without it."""


class ClusterAddon(Base):
    """One add-on in one cluster."""

    __tablename__ = "cluster_addons"

    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[AddonName] = mapped_column(text_enum(AddonName), primary_key=True)
    owner: Mapped[AddonOwner] = mapped_column(text_enum(AddonOwner))
    state: Mapped[AddonState] = mapped_column(text_enum(AddonState))
    release: Mapped[str | None] = mapped_column(String(53))
    namespace: Mapped[str | None] = mapped_column(String(63))
    chart: Mapped[str | None] = mapped_column(String(128))
    """Name and version."""
    detail: Mapped[str | None] = mapped_column(Text)
    """Why it failed, or what is special about it."""
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"), onupdate=text("now()"))
