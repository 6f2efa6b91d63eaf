"""What the commands that work on this machine share: settings, quiet logs, and the database."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from budcluster.cli.client import fail
from budcluster.kit.errors import DomainError

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

    from budcluster.config import Settings
    from budcluster.kit.database import Database

Result = TypeVar("Result")

_NO_SUCH_TABLE = frozenset({"42P01", "42703"})
"""undefined_table and undefined_column (PostgreSQL 17, appendix A)."""


def load_settings() -> "Settings":
    """The settings; ends the program with one sentence a problem."""
    from budcluster.config import Settings, WrongSettings  # noqa: PLC0415 - heavy: other commands must stay quick

    try:
        return Settings.load()
    except WrongSettings as wrong:
        fail("\nbudcluster: ".join(wrong.problems), 2)


def on_database(settings: "Settings", work: "Callable[[Database], Awaitable[Result]]") -> Result:
    """Do work on the database of the settings. Ends the program with a sentence and code 1 when it cannot be done."""
    from budcluster.kit.database import Database  # noqa: PLC0415 - heavy: other commands must stay quick

    async def run() -> Result:
        database = Database(settings.sqlalchemy_url, settings.database)
        try:
            return await work(database)
        finally:
            await database.close()

    return finish(settings, run)


def finish(settings: "Settings", work: Callable[[], Awaitable[Result]]) -> Result:
    """Do work to its end. Standard output stays the command's own: log lines from warnings on go to standard error."""
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 - heavy: other commands must stay quick

    from budcluster.kit.database import DatabaseUnavailable, is_outage  # noqa: PLC0415
    from budcluster.kit.logging import configure  # noqa: PLC0415
    from budcluster.kit.redaction import Redactor  # noqa: PLC0415

    password = settings.sqlalchemy_url.password
    quiet = settings.log.model_copy(update={"level": "WARNING"})
    pipeline = configure(quiet, Redactor([password] if password else []))
    # What it tells of a lost connection we say in one sentence.
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)

    async def run() -> Result:
        return await work()

    try:
        return asyncio.run(run())
    except DomainError as error:
        fail(error.detail, 1)
    except (DBAPIError, OSError) as error:
        fail(DatabaseUnavailable().detail if is_outage(error) or isinstance(error, OSError) else _reason(error), 1)
    finally:
        pipeline.close()


def _reason(error: "DBAPIError") -> str:
    if getattr(error.orig, "sqlstate", None) in _NO_SUCH_TABLE:
        return "The database does not have this version's tables yet; run `budcluster migrate`."
    said = str(error.orig).splitlines()[0].rpartition(">: ")[2]
    return f"The database refused it: {said}"
