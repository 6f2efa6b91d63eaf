"""Tasks in groups: a cancellation that is not lost, and the error behind a group of errors."""

import asyncio


def raise_if_cancelled() -> None:
    """Raise CancelledError if the present task was asked to end. For the head of loops that survive outages.

    A cancellation that meets a query whose connection breaks in the same moment can vanish: the driver (asyncpg 0.32)
    reports the broken connection instead, and SQLAlchemy's pre-ping (2.1) takes that for a stale one and goes on.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def innermost(error: BaseException) -> BaseException:
    """The error inside however many groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
