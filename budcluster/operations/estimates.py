"""How long things take: learned from earlier runs of the same step, else from how far a step has come by now.

Both are spread over steps of which nothing is known yet.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text

from budcluster.kit.database import ReadSession
from budcluster.operations.models import FINISHED, Operation, OperationStatus, OperationStep, StepStatus

_LEARN_FROM: Final = 20
_TELLING_PERCENT: Final = 5
"""What a step has done before it came so far says nothing of its pace."""
_SETTLED: Final = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.FAILED, StepStatus.CANCELLED})

_MEDIANS: Final = text(
    """
    select name, percentile_cont(0.5) within group (order by seconds)
    from (
        select wanted.name, extract(epoch from step.finished_at - step.started_at) as seconds
        from unnest(cast(:names as text[])) as wanted(name)
        cross join lateral (
            select started_at, finished_at from operation_steps
            where kind = :kind and operation_steps.name = wanted.name
              and status = 'SUCCEEDED' and started_at is not null
            order by finished_at desc limit :latest
        ) as step
    ) as runs
    group by name
    """
)


async def expected_seconds(session: ReadSession, kind: str, names: Sequence[str]) -> dict[str, float]:
    """Median seconds of the latest successful runs of each step; steps that never ran are absent."""
    rows = await session.execute(_MEDIANS, {"kind": kind, "names": list(names), "latest": _LEARN_FROM})
    return {name: float(seconds) for name, seconds in rows}


def overall_percent(steps: Sequence[OperationStep]) -> int:
    """Weighted percent of the whole; skipped steps count as done. 100 only when all are."""
    total = sum(step.weight for step in steps)
    if not total:
        return 0
    done = sum(step.weight * _percent(step) for step in steps)
    return int(done / total + 1e-9)


def eta(operation: Operation, steps: Sequence[OperationStep], now: datetime) -> datetime | None:
    """When the operation will probably have ended; None when it is not at work or nothing is known yet."""
    if operation.status in FINISHED or operation.status is OperationStatus.CANCELLING:
        return None
    known = [(step.weight, seconds) for step in steps if (seconds := _whole(step, now)) is not None]
    weight = sum(weight for weight, _ in known)
    if not weight:
        return None
    seconds_per_weight = sum(seconds for _, seconds in known) / weight
    remaining = sum(_remaining(step, seconds_per_weight, now) for step in steps if step.status not in _SETTLED)
    return now + timedelta(seconds=remaining)


def _percent(step: OperationStep) -> int:
    return 100 if step.status in {StepStatus.SUCCEEDED, StepStatus.SKIPPED} else step.percent


def _whole(step: OperationStep, now: datetime) -> float | None:
    """Seconds that the step takes from its beginning to its end; None when nothing tells."""
    if step.expected_seconds is not None:
        return step.expected_seconds
    if step.started_at is None or step.status in _SETTLED or step.percent < _TELLING_PERCENT:
        return None
    return (now - step.started_at).total_seconds() * 100 / step.percent


def _remaining(step: OperationStep, seconds_per_weight: float, now: datetime) -> float:
    found = _whole(step, now)
    expected = found if found is not None else step.weight * seconds_per_weight
    if step.started_at is None:
        return expected
    # One that takes longer than usual is never "about to end": a tenth of its usual time always remains.
    return max(expected - (now - step.started_at).total_seconds(), expected / 10)
