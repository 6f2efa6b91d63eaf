"""The deployment table and its words."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from budcluster.kit.database import Base, Versioned, text_enum


class RuntimeType(StrEnum):
    """Which engine serves the model."""

    VLLM = "VLLM"
    SGLANG = "SGLANG"
    TENSORRT_LLM = "TENSORRT_LLM"


class DeploymentStatus(StrEnum):
    """Where a deployment stands; the legal moves are in `lifecycle`."""

    PENDING = "PENDING"
    DEPLOYING = "DEPLOYING"
    RUNNING = "RUNNING"
    UPDATING = "UPDATING"
    PARKED = "PARKED"
    """Scaled to zero on purpose."""
    FAILED = "FAILED"
    """Heals to RUNNING by itself when the cause goes away."""
    DELETING = "DELETING"


DELETION: Final = "delete_deployment"
"""The kind of operation that takes a deployment out of its cluster."""


class Deployment(Versioned, Base):
    """One model runtime release on a cluster."""

    __tablename__ = "deployments"
    __table_args__ = (
        UniqueConstraint("cluster_id", "name"),
        UniqueConstraint("cluster_id", "namespace", "helm_release"),
        CheckConstraint("replicas_desired >= 0 and replicas_ready >= 0", name="replicas"),
        Index("ix_deployments_created_at_id", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("clusters.id", ondelete="RESTRICT"), index=True)
    endpoint_id: Mapped[UUID | None] = mapped_column(index=True)
    """The caller's own id of the endpoint that this deployment serves."""
    model_id: Mapped[UUID | None] = mapped_column(index=True)
    """The caller's own id of the model."""
    name: Mapped[str] = mapped_column(String(63))
    model: Mapped[str] = mapped_column(String(1024))
    """Hugging Face id or URI."""
    runtime: Mapped[RuntimeType] = mapped_column(text_enum(RuntimeType))
    config: Mapped[dict[str, Any]] = mapped_column(default=dict)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    status: Mapped[DeploymentStatus] = mapped_column(text_enum(DeploymentStatus), index=True)
    namespace: Mapped[str] = mapped_column(String(63))
    helm_release: Mapped[str] = mapped_column(String(53))
    revision: Mapped[int] = mapped_column(default=0)
    """Number of the `DeploymentRevision` that is meant to run."""
    replicas_desired: Mapped[int] = mapped_column(default=1)
    replicas_ready: Mapped[int] = mapped_column(default=0)
    servable: Mapped[bool] = mapped_column(default=False)
    """Whether a request would be answered now; stays true during a rollout that keeps a replica up."""
    endpoints: Mapped[list[Any]] = mapped_column(default=list)
    """Where it is reached; empty before it first serves, and while it is `half_removed`."""
    half_removed: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether a deletion has begun to remove it, or has cut a change of it off, and nothing has brought it back."""
    diagnosis: Mapped[dict[str, Any] | None]
    """Cause of a present failure with its evidence; cleared when healed."""
    error: Mapped[dict[str, Any] | None]
    """`{type, detail, next_step, step, since, operation_id, left}` of what failed last. Cleared by the next success."""
    max_model_len: Mapped[int | None]
    """Tokens of the longest sequence that is served."""
    model_facts: Mapped[dict[str, Any] | None]
    """The model's shape, `model_facts.ModelFacts`; None where its config is not known."""

    @property
    def replicas(self) -> dict[str, int]:
        """Wanted and ready copies, as callers see them."""
        return {"desired": self.replicas_desired, "ready": self.replicas_ready}

    @property
    def served_model(self) -> str:
        """What requests have to call the model."""
        return self.model if self.runtime is RuntimeType.TENSORRT_LLM else self.name


class DeploymentRevision(Base):
    """One way in which a deployment was or is meant to run. Never changed: going back makes a new one."""

    __tablename__ = "deployment_revisions"

    deployment_id: Mapped[UUID] = mapped_column(ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    config: Mapped[dict[str, Any]]
    values: Mapped[dict[str, Any]]
    """Of the chart, without secrets; copies are taken from the deployment."""
    actor: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(String(200))
    operation_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    served_at: Mapped[datetime | None]
    """When it first answered a prompt; None: it never did."""
