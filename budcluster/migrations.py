"""Bring the database to this version's schema. Safe with many replicas at once: an advisory lock lets one work.

Most starts find the schema as it should be; they do without Alembic, which takes a second and 12 MB to load.
"""

import asyncio
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from budcluster.config import PROJECT_ROOT

if TYPE_CHECKING:
    from alembic.config import Config

log = structlog.get_logger(__name__)

_LOCK = 8_471_000_001
"""Key of the advisory lock: any number nobody else uses in this database."""


def alembic_config(connection: Connection | None = None) -> "Config":
    """Alembic's configuration from pyproject.toml, on a given connection."""
    from alembic.config import Config  # noqa: PLC0415 - heavy, and rarely needed

    config = Config(toml_file=PROJECT_ROOT / "pyproject.toml")
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The revision that this version of the code needs: the last by name, `<number>_<slug>.py`."""
    return max(path.name.partition("_")[0] for path in (PROJECT_ROOT / "alembic" / "versions").glob("*.py"))


async def migrate(url: URL, target: str = "head") -> None:
    """Upgrade to `target`, each revision in its own transaction. A half-applied one is rolled back by PostgreSQL."""
    revision = head() if target == "head" else target
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            if await _present_revision(connection) == revision:
                log.info("database.current", revision=revision)
                return
            command = await asyncio.to_thread(_load_alembic)
            await connection.execute(text("select pg_advisory_lock(:key)"), {"key": _LOCK})
            await connection.commit()
            try:
                await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), revision))
            finally:
                await connection.rollback()
                await connection.execute(text("select pg_advisory_unlock(:key)"), {"key": _LOCK})
                await connection.commit()
    finally:
        await engine.dispose()
    log.info("database.migrated", revision=revision)


async def _present_revision(connection: AsyncConnection) -> str | None:
    is_there = await connection.scalar(text("select to_regclass('alembic_version') is not null"))
    found = await connection.scalar(text("select max(version_num) from alembic_version")) if is_there else None
    await connection.rollback()
    return found


def _load_alembic() -> Any:
    from alembic import command  # noqa: PLC0415 - heavy, and rarely needed

    return command
