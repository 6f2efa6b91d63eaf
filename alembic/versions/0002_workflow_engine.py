"""workflow engine"""

from typing import Any

import sqlalchemy as sa

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Any = None
depends_on: Any = None


def upgrade() -> None:
    op.create_table(
        "wf_history",
        sa.Column("instance_id", sa.Text(), nullable=False),
        sa.Column("first_event", sa.Integer(), nullable=False, comment="Position of the first of these events."),
        sa.Column(
            "events", sa.ARRAY(sa.LargeBinary()), nullable=False, comment="HistoryEvent, serialized; one row a turn."
        ),
        sa.PrimaryKeyConstraint("instance_id", "first_event", name=op.f("pk_wf_history")),
    )
    op.create_table(
        "wf_inbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("instance_id", sa.Text(), nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=True, comment="Null: for whichever generation lives."),
        sa.Column("event", sa.LargeBinary(), nullable=False),
        sa.Column("visible_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wf_inbox")),
        comment="Messages and timers that wait for an instance.",
    )
    op.create_index("ix_wf_inbox_instance_id", "wf_inbox", ["instance_id"], unique=False)
    op.create_index("ix_wf_inbox_visible_at", "wf_inbox", ["visible_at"], unique=False)
    op.create_table(
        "wf_owners",
        sa.Column(
            "id", sa.Integer(), sa.Identity(always=True), nullable=False, comment="Also the key of its advisory lock."
        ),
        sa.Column("registered_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wf_owners")),
        comment="Processes that take work; one lives while it holds its advisory lock.",
    )
    op.create_table(
        "wf_instances",
        sa.Column("instance_id", sa.Text(), nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=False, comment="One per generation."),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=False, comment="OrchestrationStatus of the protocol."),
        sa.Column("suspended", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("input", sa.Text(), nullable=True),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("custom_status", sa.Text(), nullable=True),
        sa.Column("failure", sa.LargeBinary(), nullable=True, comment="TaskFailureDetails, serialized."),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("parent_execution", sa.Text(), nullable=True),
        sa.Column("parent_task", sa.Integer(), nullable=True),
        sa.Column("history_events", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "deliveries", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Of the present turn."
        ),
        sa.Column("owner", sa.Integer(), nullable=True),
        sa.Column("token", sa.Text(), nullable=True, comment="Of the lease."),
        sa.Column("scheduled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["owner"], ["wf_owners.id"], name=op.f("fk_wf_instances_owner_wf_owners"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_wf_instances")),
    )
    op.create_index(
        "ix_wf_instances_completed_at",
        "wf_instances",
        ["completed_at"],
        unique=False,
        postgresql_where=sa.text("completed_at IS NOT NULL"),
    )
    op.create_index(
        "ix_wf_instances_owner", "wf_instances", ["owner"], unique=False, postgresql_where=sa.text("owner IS NOT NULL")
    )
    op.create_index(
        "ix_wf_instances_parent_id",
        "wf_instances",
        ["parent_id"],
        unique=False,
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )
    op.create_table(
        "wf_tasks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("instance_id", sa.Text(), nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("event", sa.LargeBinary(), nullable=False, comment="taskScheduled, serialized."),
        sa.Column("deliveries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.Integer(), nullable=True),
        sa.Column("token", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["owner"], ["wf_owners.id"], name=op.f("fk_wf_tasks_owner_wf_owners"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wf_tasks")),
        comment="Activities that have not ended.",
    )
    op.create_index("ix_wf_tasks_free", "wf_tasks", ["id"], unique=False, postgresql_where=sa.text("owner IS NULL"))
    op.create_index("ix_wf_tasks_instance_id", "wf_tasks", ["instance_id"], unique=False)
    op.create_index(
        "ix_wf_tasks_owner", "wf_tasks", ["owner"], unique=False, postgresql_where=sa.text("owner IS NOT NULL")
    )


def downgrade() -> None:
    for table in ("wf_tasks", "wf_inbox", "wf_history", "wf_instances", "wf_owners"):
        op.drop_table(table)
