"""Makers of history events, and the few questions that are asked about them. Pure."""

from datetime import UTC, datetime
from typing import Any, Final

from budcluster.durable.sidecar.protos import Timestamp, pb

_TEXT_LIMIT: Final = 16_000  # characters of an error message or a stack trace that are kept

_SETTLING: Final = {
    "taskCompleted": ("task", "taskScheduledId"),
    "taskFailed": ("task", "taskScheduledId"),
    "timerFired": ("timer", "timerId"),
    "childWorkflowInstanceCompleted": ("child", "taskScheduledId"),
    "childWorkflowInstanceFailed": ("child", "taskScheduledId"),
}


def timestamp(moment: datetime) -> Timestamp:
    """A protocol timestamp of an aware moment."""
    made = Timestamp()
    made.FromDatetime(moment.astimezone(UTC).replace(tzinfo=None))
    return made


def moment_of(stamp: Timestamp) -> datetime:
    """The aware moment of a protocol timestamp."""
    return stamp.ToDatetime(tzinfo=UTC)


def event(now: datetime, event_id: int = -1, **payload: object) -> pb.HistoryEvent:
    """A history event with one payload; -1 is the id of events that nothing refers to."""
    return pb.HistoryEvent(eventId=event_id, timestamp=timestamp(now), **payload)  # type: ignore[arg-type]


def failure(error_type: str, message: str, *, final: bool = False) -> pb.TaskFailureDetails:
    """What failed and why. The SDK stops retrying an error of the type name `NonRetryableError`, hence `final`."""
    return pb.TaskFailureDetails(
        errorType="NonRetryableError" if final else error_type, errorMessage=message, isNonRetriable=final
    )


def trimmed(details: pb.TaskFailureDetails) -> pb.TaskFailureDetails:
    """The same failure with a message and a stack trace of bounded length."""
    details.errorMessage = details.errorMessage[:_TEXT_LIMIT]
    if details.HasField("stackTrace"):
        details.stackTrace.value = details.stackTrace.value[-_TEXT_LIMIT:]
    return details


def task_completed(now: datetime, task_id: int, result: pb.ActivityResponse) -> pb.HistoryEvent:
    """The event that carries an activity's result or failure back to its workflow."""
    if result.HasField("failureDetails"):
        return task_failed(now, task_id, result.failureDetails)
    done = pb.TaskCompletedEvent(taskScheduledId=task_id)
    if result.HasField("result"):
        done.result.CopyFrom(result.result)
    return event(now, taskCompleted=done)


def task_failed(now: datetime, task_id: int, details: pb.TaskFailureDetails) -> pb.HistoryEvent:
    """The event of an activity that failed."""
    return event(now, taskFailed=pb.TaskFailedEvent(taskScheduledId=task_id, failureDetails=trimmed(details)))


def copy_call(wanted: Any, made: Any) -> None:
    """Give `made` the version and the input that `wanted` has: a call says both again in each message about it."""
    if wanted.HasField("version"):
        made.version.CopyFrom(wanted.version)
    if wanted.HasField("input"):
        made.input.CopyFrom(wanted.input)


def resolves(happened: pb.HistoryEvent) -> tuple[str, int] | None:
    """Which pending piece of work this event settles; the same piece is settled once only."""
    kind = happened.WhichOneof("eventType")
    if kind == "executionStarted":
        return ("start", 0)
    if kind not in _SETTLING:
        return None
    what, field = _SETTLING[kind]
    return (what, getattr(getattr(happened, kind), field))
