"""Bring the database to this version's schema. Safe with many replicas at once: an advisory lock lets one work."""

import asyncio

import structlog
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from alembic import command
from budcluster.config import PROJECT_ROOT

log = structlog.get_logger(__name__)

_LOCK = 8_471_000_001
"""Key of the advisory lock: any number nobody else uses in this database."""


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration from pyproject.toml, on a given connection."""
    config = Config(toml_file=PROJECT_ROOT / "pyproject.toml")
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The revision that this version of the code needs."""
    revision = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert revision is not None
    return revision


async def migrate(url: URL, target: str = "head") -> None:
    """Upgrade to `target`, each revision in its own transaction. A half-applied one is rolled back by PostgreSQL."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("select pg_advisory_lock(:key)"), {"key": _LOCK})
            await connection.commit()
            try:
                await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), target))
            finally:
                await connection.rollback()
                await connection.execute(text("select pg_advisory_unlock(:key)"), {"key": _LOCK})
                await connection.commit()
    finally:
        await engine.dispose()
    log.info("database.migrated", revision=target if target != "head" else await asyncio.to_thread(head))
