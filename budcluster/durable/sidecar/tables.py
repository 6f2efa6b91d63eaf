"""The embedded sidecar's tables, for migrations and for `alembic check`; at run time plain SQL is used (`sql`).

A lease is a foreign key to a living owner: deleting the owner's row frees everything it held.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)

METADATA = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s"}
)


def _owner() -> "Column[int]":
    return Column("owner", Integer, ForeignKey("wf_owners.id", ondelete="SET NULL"))


OWNERS = Table(
    "wf_owners",
    METADATA,
    Column("id", Integer, Identity(always=True), primary_key=True, comment="Also the key of its advisory lock."),
    Column("registered_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("host", Text, nullable=False),
    comment="Processes that take work; one lives while it holds its advisory lock.",
)

INSTANCES = Table(
    "wf_instances",
    METADATA,
    Column("instance_id", Text, primary_key=True),
    Column("execution_id", Text, nullable=False, comment="One per generation."),
    Column("name", Text, nullable=False),
    Column("version", Text),
    Column("status", SmallInteger, nullable=False, comment="OrchestrationStatus of the protocol."),
    Column("suspended", Boolean, nullable=False, server_default=text("false")),
    Column("input", Text),
    Column("output", Text),
    Column("custom_status", Text),
    Column("failure", LargeBinary, comment="TaskFailureDetails, serialized."),
    Column("parent_id", Text),
    Column("parent_execution", Text),
    Column("parent_task", Integer),
    Column("history_events", Integer, nullable=False, server_default=text("0")),
    Column("deliveries", Integer, nullable=False, server_default=text("0"), comment="Of the present turn."),
    _owner(),
    Column("token", Text, comment="Of the lease."),
    Column("scheduled_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("completed_at", DateTime(timezone=True)),
)
Index("ix_wf_instances_owner", INSTANCES.c.owner, postgresql_where=INSTANCES.c.owner.is_not(None))
Index("ix_wf_instances_parent_id", INSTANCES.c.parent_id, postgresql_where=INSTANCES.c.parent_id.is_not(None))
Index("ix_wf_instances_completed_at", INSTANCES.c.completed_at, postgresql_where=INSTANCES.c.completed_at.is_not(None))

HISTORY = Table(
    "wf_history",
    METADATA,
    Column("instance_id", Text, primary_key=True),
    Column("first_event", Integer, primary_key=True, comment="Position of the first of these events."),
    Column("events", ARRAY(LargeBinary), nullable=False, comment="HistoryEvent, serialized; one row a turn."),
)

INBOX = Table(
    "wf_inbox",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("instance_id", Text, nullable=False),
    Column("execution_id", Text, comment="Null: for whichever generation lives."),
    Column("event", LargeBinary, nullable=False),
    Column("visible_at", DateTime(timezone=True), nullable=False),
    comment="Messages and timers that wait for an instance.",
)
Index("ix_wf_inbox_visible_at", INBOX.c.visible_at)
Index("ix_wf_inbox_instance_id", INBOX.c.instance_id)

TASKS = Table(
    "wf_tasks",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("instance_id", Text, nullable=False),
    Column("execution_id", Text, nullable=False),
    Column("task_id", Integer, nullable=False),
    Column("event", LargeBinary, nullable=False, comment="taskScheduled, serialized."),
    Column("deliveries", Integer, nullable=False, server_default=text("0")),
    _owner(),
    Column("token", Text),
    comment="Activities that have not ended.",
)
Index("ix_wf_tasks_free", TASKS.c.id, postgresql_where=TASKS.c.owner.is_(None))
Index("ix_wf_tasks_owner", TASKS.c.owner, postgresql_where=TASKS.c.owner.is_not(None))
Index("ix_wf_tasks_instance_id", TASKS.c.instance_id)
