"""What the health checks remember of each cluster."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from budcluster.cluster.models import ClusterHealth
from budcluster.kit.database import Base, text_enum


class ClusterCheck(Base):
    """The last look at one cluster: what it showed, and how often in a row. Damping needs both."""

    __tablename__ = "cluster_checks"

    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    verdict: Mapped[ClusterHealth] = mapped_column(text_enum(ClusterHealth))
    times: Mapped[int]
    checked_at: Mapped[datetime]
