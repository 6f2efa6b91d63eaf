"""Runs migrations on the connection that `budcluster.migrations` hands over, or on `DATABASE_URL` for the bare tool."""

import asyncio
from typing import Any, Literal

from sqlalchemy import Connection, Enum, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from alembic import context
from budcluster.config import Settings
from budcluster.durable.sidecar.tables import METADATA as WORKFLOWS
from budcluster.kit.sealed import SealedColumn
from budcluster.tables import METADATA


def render_item(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Write plain database types into migrations, so that they never import the code of a later version."""
    if kind == "type" and isinstance(item, SealedColumn):
        return "sa.LargeBinary()"
    if kind == "type" and isinstance(item, Enum):
        return f"sa.String(length={item.length})"
    return False


def run(connection: Connection) -> None:
    # A migration must not queue behind a long transaction and block everybody else meanwhile.
    connection.execute(text("set lock_timeout = '5s'"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=[METADATA, WORKFLOWS],
        compare_type=True,
        transaction_per_migration=True,
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_on_own_connection() -> None:
    engine = create_async_engine(Settings.load().sqlalchemy_url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_on_own_connection())
