"""inventory"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Any = None
depends_on: Any = None


def upgrade() -> None:
    op.create_table(
        "inventory_states",
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("holder", sa.String(length=128), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("synced", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("cpu_requested", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("memory_requested_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _of_cluster("inventory_states"),
        sa.PrimaryKeyConstraint("cluster_id", name=op.f("pk_inventory_states")),
    )
    op.create_table(
        "inventory_nodes",
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.Column("feature", postgresql.JSONB(), nullable=True),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("schedulable", sa.Boolean(), nullable=False),
        sa.Column("pressed", sa.Boolean(), nullable=False),
        sa.Column("cpu_cores", sa.Float(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("gpu_count", sa.Integer(), nullable=False),
        sa.Column("gpus_healthy", sa.Integer(), nullable=False),
        sa.Column("gpu_model", sa.String(length=128), nullable=True),
        _of_cluster("inventory_nodes"),
        sa.PrimaryKeyConstraint("cluster_id", "name", name=op.f("pk_inventory_nodes")),
    )
    op.create_index("ix_inventory_nodes_created_at", "inventory_nodes", ["cluster_id", "created_at", "uid"])
    op.create_table(
        "inventory_gpu_pods",
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("node", sa.String(length=253), nullable=True),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("release", sa.String(length=63), nullable=True),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        _of_cluster("inventory_gpu_pods"),
        sa.PrimaryKeyConstraint("cluster_id", "namespace", "name", name=op.f("pk_inventory_gpu_pods")),
    )
    op.create_index("ix_inventory_gpu_pods_node", "inventory_gpu_pods", ["cluster_id", "node"])
    op.create_table(
        "cluster_checks",
        sa.Column("cluster_id", sa.Uuid(), nullable=False),
        sa.Column("verdict", sa.String(length=32), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        _of_cluster("cluster_checks"),
        sa.PrimaryKeyConstraint("cluster_id", name=op.f("pk_cluster_checks")),
    )


def downgrade() -> None:
    op.drop_table("cluster_checks")
    op.drop_table("inventory_gpu_pods")
    op.drop_table("inventory_nodes")
    op.drop_table("inventory_states")


def _of_cluster(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["cluster_id"], ["clusters.id"], name=op.f(f"fk_{table}_cluster_id_clusters"), ondelete="CASCADE"
    )
