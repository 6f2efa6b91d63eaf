"""What can be wrong with a request about an operation, and how work inside one ends early."""

from uuid import UUID

from budcluster.kit.errors import Conflict, NotFound


class OperationNotFound(NotFound):
    """There is no operation with this id. Finished ones are kept for a while only; `GET /operations` lists them."""

    title = "Operation not found"

    def __init__(self, operation_id: UUID) -> None:
        super().__init__(
            f"There is no operation {operation_id}. Finished ones are removed after a while; list /operations.",
            operation_id=str(operation_id),
        )


class OperationBusy(Conflict):
    """Another operation works on the same thing. Wait for its end or cancel it; `operation` links to it."""

    title = "Another operation is at work"

    def __init__(self, *, subject: str, operation_id: UUID, kind: str) -> None:
        super().__init__(
            f"{subject} is busy with {kind}. Wait for that operation to end or cancel it: /operations/{operation_id}.",
            headers={"Link": f'</operations/{operation_id}>; rel="related"'},
            operation_id=str(operation_id),
            operation=f"/operations/{operation_id}",
        )


class OperationNotCancelable(Conflict):
    """An operation that has ended, or whose kind always runs to its end, cannot be cancelled. The detail says which."""

    title = "Operation cannot be cancelled"


class OperationNotRetryable(Conflict):
    """Only a failed or cancelled operation of a retryable kind can be retried. The detail says what is in the way."""

    title = "Operation cannot be retried"


class StaleAttempt(Exception):
    """The attempt that this work belongs to has ended or was replaced. The work must do nothing more."""


class Superseded(StaleAttempt):
    """Another activity has taken this step up, because the engine gave this one up. It must do nothing more."""


class OperationCancelled(Exception):
    """Somebody asked for the operation's end; the step has stopped what it ran."""
