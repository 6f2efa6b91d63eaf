"""Tables of long work: operations, their steps and log lines, and the events that tell about them (the outbox)."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, CheckConstraint, Float, ForeignKey, Identity, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from budcluster.kit.database import Base, text_enum


class SubjectType(StrEnum):
    """What an operation works on."""

    CLUSTER = "cluster"
    DEPLOYMENT = "deployment"


class OperationStatus(StrEnum):
    """Where an operation stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    """Somebody asked for an end; what runs is being stopped and undone."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class StepStatus(StrEnum):
    """Where a step stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


class Claim(StrEnum):
    """An operation's hold on its subject."""

    NONE = "NONE"
    """Finished, or never needed the subject for itself."""
    WAITING = "WAITING"
    """Next in line: runs when the present holder has ended."""
    HOLDING = "HOLDING"


class EventType(StrEnum):
    """What an event tells about. Also the event types of the server-sent stream."""

    OPERATION = "operation"
    STEP = "step"
    LOG = "log"


FINISHED: Final = frozenset({OperationStatus.SUCCEEDED, OperationStatus.FAILED, OperationStatus.CANCELLED})
"""Nothing happens in these until somebody retries."""


class Operation(Base):
    """One piece of long work on a cluster or a deployment."""

    __tablename__ = "operations"
    __table_args__ = (
        # One operation holds a subject, and at most one (a DELETE) waits for it.
        Index(
            "uq_operations_claim",
            "subject_type",
            "subject_id",
            "claim",
            unique=True,
            postgresql_where=text("claim <> 'NONE'"),
        ),
        Index("ix_operations_created_at_id", "created_at", "id"),
        Index("ix_operations_subject_id_created_at", "subject_id", "created_at"),
        Index(
            "ix_operations_unfinished",
            "status",
            postgresql_where=text("status in ('PENDING', 'RUNNING', 'CANCELLING')"),
        ),
        CheckConstraint("percent between 0 and 100", name="percent"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    kind: Mapped[str] = mapped_column(String(64))
    """The work in `verb_object`, for example `provision_cluster`."""
    subject_type: Mapped[SubjectType] = mapped_column(text_enum(SubjectType))
    subject_id: Mapped[UUID]
    subject_name: Mapped[str] = mapped_column(String(253))
    status: Mapped[OperationStatus] = mapped_column(text_enum(OperationStatus), default=OperationStatus.PENDING)
    claim: Mapped[Claim] = mapped_column(text_enum(Claim), default=Claim.NONE)
    exclusive: Mapped[bool] = mapped_column(default=True)
    """Whether it needs its subject for itself."""

    workflow: Mapped[str] = mapped_column(String(64))
    attempt: Mapped[int] = mapped_column(default=1)
    """1, and one more with every retry."""
    launched_at: Mapped[datetime | None]
    """When the workflow of this attempt was handed to the engine; None: still to do."""
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Ids and small facts for the workflow; never a secret."""
    cancelable: Mapped[bool] = mapped_column(default=True)
    retryable: Mapped[bool] = mapped_column(default=True)
    cancel_requested_at: Mapped[datetime | None]

    percent: Mapped[int] = mapped_column(default=0)
    current_step: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[dict[str, Any] | None]
    """`{type, detail, next_step, step}` when it failed."""
    result: Mapped[dict[str, Any] | None]
    """Small facts about what came out; after a cancellation, what is left."""
    actor: Mapped[str] = mapped_column(String(253))
    sequence: Mapped[int] = mapped_column(default=0)
    """Number of the latest event."""
    log_number: Mapped[int] = mapped_column(default=0)
    """Number of the latest log line; older ones may have been dropped."""
    log_bytes: Mapped[int] = mapped_column(default=0)
    """Bytes of the kept log lines."""
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @property
    def instance_id(self) -> str:
        """The workflow instance of this attempt: always the same, so that starting twice starts one."""
        first = f"{self.kind}-{self.id}"
        return first if self.attempt == 1 else f"{first}-{self.attempt}"


class OperationStep(Base):
    """One named step. All of them exist from the start, so that a page can show the whole way."""

    __tablename__ = "operation_steps"
    __table_args__ = (
        # What earlier runs of a step took is read from here.
        Index(
            "ix_operation_steps_succeeded",
            "kind",
            "name",
            "finished_at",
            postgresql_where=text("status = 'SUCCEEDED'"),
        ),
        CheckConstraint("percent between 0 and 100", name="percent"),
    )

    operation_id: Mapped[UUID] = mapped_column(ForeignKey("operations.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(64))
    """The operation's kind, repeated so that learning reads one index."""
    title: Mapped[str] = mapped_column(String(120))
    position: Mapped[int]
    weight: Mapped[float] = mapped_column(Float, default=1.0)
    """Share of the whole, relative to the other steps."""
    status: Mapped[StepStatus] = mapped_column(text_enum(StepStatus), default=StepStatus.PENDING)
    percent: Mapped[int] = mapped_column(default=0)
    runner: Mapped[str | None] = mapped_column(String(32))
    """Who works on it. Whoever takes it up after a crash or a freeze replaces the one before, who may not go on."""
    detail: Mapped[str | None] = mapped_column(String(500))
    error: Mapped[dict[str, Any] | None]
    """The latest cause of trouble; the step's cause of failure once the operation has failed."""
    result: Mapped[dict[str, Any] | None]
    """What the step gave, for its repetition."""
    expected_seconds: Mapped[float | None] = mapped_column(Float)
    """Median of the latest successful runs of the same step, as known when the operation was requested."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class OperationLogLine(Base):
    """One line that a tool printed, masked before it came here. The oldest ones go when there are too many."""

    __tablename__ = "operation_log_lines"

    operation_id: Mapped[UUID] = mapped_column(ForeignKey("operations.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
    text: Mapped[str] = mapped_column(Text)


class OperationEvent(Base):
    """The outbox: one change, written in the transaction that made it."""

    __tablename__ = "operation_events"
    __table_args__ = (
        Index("uq_operation_events_operation_id_sequence", "operation_id", "sequence", unique=True),
        Index(
            "ix_operation_events_unpublished",
            "id",
            postgresql_where=text("published_at is null and type <> 'log'"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    operation_id: Mapped[UUID] = mapped_column(ForeignKey("operations.id", ondelete="CASCADE"))
    sequence: Mapped[int]
    """1, 2, 3 … within the operation; later events were committed later."""
    type: Mapped[EventType] = mapped_column(text_enum(EventType))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    published_at: Mapped[datetime | None]
    """When the message broker took it; log lines are not published."""


class SubjectEvent(Base):
    """The outbox for changes that no operation made: a cluster's health, what a deployment is seen to do."""

    __tablename__ = "subject_events"
    __table_args__ = (
        Index("ix_subject_events_created_at", "created_at"),
        Index("ix_subject_events_unpublished", "id", postgresql_where=text("published_at is null")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    """Rises with every event of a subject."""
    subject_type: Mapped[SubjectType] = mapped_column(text_enum(SubjectType))
    subject_id: Mapped[UUID]
    """No foreign key: an event outlives its subject."""
    change: Mapped[str] = mapped_column(String(64))
    """What happened, for example `health_changed`."""
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    published_at: Mapped[datetime | None]


class Outcome(StrEnum):
    """How a periodic run ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class PeriodicRun(Base):
    """One periodic job: when it is due, who runs it, how it went."""

    __tablename__ = "periodic_runs"

    job: Mapped[str] = mapped_column(String(64), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None]
    """A run whose lease has passed belongs to a dead or frozen replica; another one may take it."""
    last_started_at: Mapped[datetime | None]
    last_finished_at: Mapped[datetime | None]
    last_outcome: Mapped[Outcome | None] = mapped_column(text_enum(Outcome))
    last_detail: Mapped[str | None] = mapped_column(String(500))
    runs: Mapped[int] = mapped_column(BigInteger, default=0)
    missed: Mapped[int] = mapped_column(BigInteger, default=0)
    """Runs that began more than one whole interval late."""
