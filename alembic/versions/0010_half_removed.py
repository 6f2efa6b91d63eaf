"""whether a deletion has begun to take a deployment out"""

from typing import Any

import sqlalchemy as sa

from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: Any = None
depends_on: Any = None

# What a deletion from before this column had done by now is not known.
_MARK = """
update deployments set half_removed = true
where status = 'DELETING' or (error ->> 'kind' = 'delete_deployment' and endpoints = '[]')
"""


def upgrade() -> None:
    column = sa.Column("half_removed", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    op.add_column("deployments", column)
    op.execute(_MARK)


def downgrade() -> None:
    op.drop_column("deployments", "half_removed")
