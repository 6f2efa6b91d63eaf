"""When an operation will probably have ended."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from budcluster.operations.estimates import eta
from budcluster.operations.models import Operation, OperationStatus, OperationStep, StepStatus

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def step(
    status: StepStatus, *, weight: int = 1, percent: int = 0, since_s: int | None = None, **more: Any
) -> OperationStep:
    began = None if since_s is None else NOW - timedelta(seconds=since_s)
    return OperationStep(status=status, weight=weight, percent=percent, started_at=began, **more)


DONE = step(StepStatus.SUCCEEDED, since_s=100)
PENDING = step(StepStatus.PENDING, weight=2)


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        ([DONE, step(StepStatus.RUNNING, percent=25, since_s=30)], 90),
        ([DONE, step(StepStatus.RUNNING, weight=4, percent=50, since_s=40), PENDING], 80),
        ([step(StepStatus.RUNNING, percent=50, since_s=40, expected_seconds=60.0)], 20),
        ([DONE, step(StepStatus.RUNNING, percent=2, since_s=30)], None),
        ([DONE, step(StepStatus.RUNNING, since_s=30)], None),
        ([PENDING], None),
    ],
)
def test_without_history_the_pace_of_the_running_step_tells(steps: list[OperationStep], seconds: int | None) -> None:
    found = eta(Operation(status=OperationStatus.RUNNING), steps, NOW)
    assert found == (None if seconds is None else NOW + timedelta(seconds=seconds))
