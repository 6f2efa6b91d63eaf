"""Routes of long work: what is going on, how far it is, its log lines; cancel and retry."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Query, Response

from budcluster.api.dependencies import Changing, CurrentClock, CurrentDatabase, Read, Write, provided
from budcluster.api.errors import InvalidCursor
from budcluster.api.paging import Listing, Rows
from budcluster.api.problems import problems
from budcluster.api.schemas import Page
from budcluster.api.sse import MEDIA_TYPE, EventStream, LastEventId
from budcluster.api.transaction import TransactionalRoute
from budcluster.kit.database import ReadSession
from budcluster.operations.errors import (
    OperationBusy,
    OperationNotCancelable,
    OperationNotFound,
    OperationNotRetryable,
)
from budcluster.operations.estimates import eta
from budcluster.operations.feeds import Feeds
from budcluster.operations.models import FINISHED, Operation, OperationLogLine, OperationStep
from budcluster.operations.schemas import LogLine, LogQuery, OperationAnswer, OperationDetail, OperationQuery
from budcluster.operations.services import Operations

Service = Annotated[Operations, provided(Operations)]
OperationFeeds = Annotated[Feeds, provided(Feeds)]

router = APIRouter(prefix="/operations", tags=["operations"], route_class=TransactionalRoute)

OPERATIONS: Final = Listing(
    Operation,
    key=Operation.id,
    sorts={"created_at": Operation.created_at},
    filters={
        "kind": Operation.kind,
        "status": Operation.status,
        "subject_type": Operation.subject_type,
        "subject_id": Operation.subject_id,
    },
)

_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events `operation`, `step` and `log`, each with its number as id.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    },
    204: {"description": "The operation has ended and every event was seen; do not connect again."},
}


@router.get("", operation_id="list_operations", summary="List long work", responses=problems(InvalidCursor))
async def list_operations(
    query: Annotated[OperationQuery, Query()], session: Read, service: Service, clock: CurrentClock
) -> Page[OperationAnswer]:
    """Long work, newest first."""
    page = await OPERATIONS.page(session, query)
    ids = [operation.id for operation in page.items]
    steps, overtaken, now = await service.steps(session, ids), await service.overtaken(session, ids), clock.now()
    items = [OperationAnswer.model_validate(_facts(one, steps[one.id], overtaken, now)) for one in page.items]
    return Page(items=items, next_cursor=page.next_cursor)


@router.get(
    "/{operation_id}",
    operation_id="get_operation",
    summary="Look at one piece of long work",
    responses=problems(OperationNotFound),
)
async def get_operation(operation_id: UUID, session: Read, service: Service, clock: CurrentClock) -> OperationDetail:
    """One piece of long work with all its steps."""
    return await _detail(session, service, operation_id, clock.now())


@router.get(
    "/{operation_id}/events",
    operation_id="watch_operation",
    summary="Watch long work while it happens",
    response_class=Response,
    responses={**problems(OperationNotFound), **_STREAM},
)
async def watch_operation(
    operation_id: UUID, session: Read, service: Service, feeds: OperationFeeds, last_event_id: LastEventId = None
) -> Response:
    """Server-sent events from the beginning, or after `Last-Event-ID`, until the operation has ended.

    A comment comes every 15 seconds without news. A retried operation's events go on where they were.
    """
    operation, _ = await service.get(session, operation_id)
    seen = int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else 0
    if operation.status in FINISHED and seen >= operation.sequence:
        return Response(status_code=204)
    return EventStream(feeds.listen(operation_id, after=seen))


@router.get(
    "/{operation_id}/logs",
    operation_id="list_log_lines",
    summary="Read what the tools printed",
    responses=problems(OperationNotFound),
)
async def list_log_lines(
    operation_id: UUID, query: Annotated[LogQuery, Query()], session: Read, service: Service
) -> Page[LogLine]:
    """Lines that the tools printed, oldest first. The oldest ones go when there are more than some thousands."""
    await service.get(session, operation_id)
    lines = sa.select(OperationLogLine).where(
        OperationLogLine.operation_id == operation_id, OperationLogLine.number > int(query.cursor or 0)
    )
    if query.step is not None:
        lines = lines.where(OperationLogLine.step == query.step)
    found = (await session.scalars(lines.order_by(OperationLogLine.number).limit(query.limit + 1))).all()
    page = found[: query.limit]
    return Page[LogLine].model_validate(Rows(page, str(page[-1].number) if len(found) > len(page) else None))


@router.post(
    "/{operation_id}/cancel",
    status_code=202,
    operation_id="cancel_operation",
    summary="Ask long work to end",
    responses=problems(OperationNotFound, OperationNotCancelable),
)
async def cancel_operation(
    operation_id: UUID, session: Write, service: Service, clock: CurrentClock
) -> OperationDetail:
    """Ask for its end: what runs is stopped, what was made is undone, and the end says what is left. Repeatable."""
    await service.cancel(session, operation_id)
    return await _detail(session, service, operation_id, clock.now())


@router.post(
    "/{operation_id}/retry",
    status_code=202,
    operation_id="retry_operation",
    summary="Run failed work again",
    responses=problems(OperationNotFound, OperationNotRetryable, OperationBusy),
)
async def retry_operation(
    operation_id: UUID, changing: Changing, database: CurrentDatabase, service: Service, clock: CurrentClock
) -> OperationDetail:
    """Run a failed or cancelled one again. Steps that succeeded and were not undone are kept."""
    async with database.reading() as looking:
        turn = await service.turn(looking, operation_id)
    await changing.hold(turn)
    session = await changing.begin()
    await service.retry(session, operation_id)
    return await _detail(session, service, operation_id, clock.now())


async def _detail(session: ReadSession, service: Operations, operation_id: UUID, now: datetime) -> OperationDetail:
    operation, steps = await service.get(session, operation_id)
    overtaken = await service.overtaken(session, [operation_id])
    return OperationDetail.model_validate({**_facts(operation, steps, overtaken, now), "steps": steps})


def _facts(
    operation: Operation, steps: Sequence[OperationStep], overtaken: Collection[UUID], now: datetime
) -> dict[str, Any]:
    plain = {name: getattr(operation, name) for name in OperationAnswer.model_fields if name not in {"subject", "eta"}}
    return {
        **plain,
        "subject": {"type": operation.subject_type, "id": operation.subject_id, "name": operation.subject_name},
        "eta": eta(operation, steps, now),
        "retryable": operation.retryable and operation.id not in overtaken,
    }
