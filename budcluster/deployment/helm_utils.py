"""Releases of model runtimes: their names, the chart, and one Helm at a time for each."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from budcluster.kit.database import Database
from budcluster.kube.helm import ChartRef, Release

CHART: Final = Path(__file__).parent / "chart"
MAX_NAME: Final = 53
_ASK_AGAIN_S: Final = 0.5
_TRY: Final = text("select pg_try_advisory_lock(hashtextextended(:key, 0))")
_RELEASE: Final = text("select pg_advisory_unlock(hashtextextended(:key, 0))")


def release_name(name: str, deployment_id: UUID) -> str:
    """`bud-<name>-<8 hex>`, at most 53 characters as Helm wants."""
    unique = deployment_id.hex[:8]
    slug = slug_of(name)[: MAX_NAME - len("bud--") - len(unique)].strip("-")
    return f"bud-{slug}-{unique}"


def slug_of(text_: str) -> str:
    """Lower-case letters, digits and single hyphens; never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text_.lower()).strip("-") or "model"


def release_of(name: str, namespace: str, values: Mapping[str, Any]) -> Release:
    """What should be there."""
    return Release(name=name, namespace=namespace, chart=ChartRef(str(CHART)), values=values)


class ReleaseLocks:
    """Keeps two Helms off one release, over all replicas of the service (PostgreSQL advisory locks).

    Each lock in use takes a database connection of its own, so at most `at_once` are taken by one process.
    """

    def __init__(self, database: Database, *, at_once: int) -> None:
        self._database = database
        self._slots = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def hold(self, cluster_id: UUID, namespace: str, release: str) -> AsyncIterator[None]:
        """Wait for the lock; it is free again at the end, also when this process dies. Raises DatabaseUnavailable."""
        key = {"key": f"release:{cluster_id}/{namespace}/{release}"}
        async with self._slots, self._database.connection() as connection:
            # Asked again and again: a statement that waits would run into the statement timeout.
            while not await connection.scalar(_TRY, key):  # noqa: ASYNC110 - others hold it: no event of ours tells
                await asyncio.sleep(_ASK_AGAIN_S)
            try:
                yield
            finally:
                await connection.execute(_RELEASE, key)
