"""Wall and processor time of an action, and tables to print them in."""

import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds, in milliseconds; the processor's time is of this process and of those it waited for."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Table:
    """What a benchmark found. Cells are texts; numbers are aligned to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        widths = [max(len(row[column]) for row in [self.columns, *self.rows]) for column in range(len(self.columns))]
        lines = [self.title, "", _line(self.columns, widths), "-+-".join("-" * width for width in widths)]
        return "\n".join([*lines, *(_line(row, widths) for row in self.rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    return " | ".join([first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))])


def _processor_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def timed(action: Callable[[], object], *, rounds: int) -> Timing:
    """Medians of `rounds` runs, after one that does not count."""
    action()
    spent: list[tuple[float, float]] = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), _processor_s()
        action()
        spent.append((time.perf_counter() - wall, _processor_s() - cpu))
    return _medians(spent)


async def timed_async(action: Callable[[], Awaitable[object]], *, rounds: int) -> Timing:
    """The same for a coroutine function."""
    await action()
    spent: list[tuple[float, float]] = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), _processor_s()
        await action()
        spent.append((time.perf_counter() - wall, _processor_s() - cpu))
    return _medians(spent)


def _medians(spent: Sequence[tuple[float, float]]) -> Timing:
    return Timing(
        wall_ms=statistics.median(wall for wall, _ in spent) * 1000,
        cpu_ms=statistics.median(cpu for _, cpu in spent) * 1000,
    )
