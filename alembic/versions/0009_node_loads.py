"""what pods without GPUs ask of each node; null until somebody has looked"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Any = None
depends_on: Any = None

_COLUMNS = {
    "cpu_requested": sa.Float(),
    "memory_requested_bytes": sa.BigInteger(),
    "copies": postgresql.JSONB(),
}


def upgrade() -> None:
    for name, kind in _COLUMNS.items():
        op.add_column("inventory_nodes", sa.Column(name, kind))


def downgrade() -> None:
    for name in reversed(_COLUMNS):
        op.drop_column("inventory_nodes", name)
