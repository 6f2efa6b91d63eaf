"""Tells the message broker what happened to operations: CloudEvents 1.0 through the Dapr sidecar's pub/sub.

At least once, and in order within an operation: an event is sent only after those before it were taken. What cannot be
sent now stays in the outbox and is tried again with growing pauses. Log lines are read from the service, not published.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any, Final
from uuid import UUID

import httpx
import structlog
from sqlalchemy import select, update

from budcluster.config import Settings
from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import Database
from budcluster.kit.errors import UpstreamUnavailable
from budcluster.operations.models import EventType, OperationEvent

log = structlog.get_logger(__name__)

_BATCH: Final = 500
_AT_ONCE: Final = 8
_PAUSES: Final = tuple(timedelta(seconds=s) for s in (1, 2, 5, 10, 30, 60))
_TYPES: Final = {
    EventType.OPERATION: "budcluster.operation.changed",
    EventType.STEP: "budcluster.operation.step_changed",
}


class BrokerUnavailable(UpstreamUnavailable):
    """The message broker took no events. They stay in the outbox and are sent when it is back."""

    title = "The message broker is not available"


class Publisher:
    """Empties the outbox into one topic. One at a time: run it as a periodic job."""

    def __init__(
        self, database: Database, http: httpx.AsyncClient, settings: Settings, clock: Clock | None = None
    ) -> None:
        """`http` needs no base URL; `settings.events.pubsub` must be set."""
        self._database = database
        self._http = http
        self._url = (
            f"{settings.dapr_http_endpoint.rstrip('/')}/v1.0/publish/{settings.events.pubsub}/{settings.events.topic}"
        )
        token = settings.dapr_api_token
        self._headers = {"dapr-api-token": token.get_secret_value()} if token else {}
        self._clock = clock or SystemClock()
        self._failures = 0
        self._not_before = self._clock.now()

    @property
    def is_waiting(self) -> bool:
        """Whether the broker refused lately, so that nothing is tried just now."""
        return self._clock.now() < self._not_before

    async def publish(self) -> str:
        """Send what waits. Says how many events. Raises BrokerUnavailable when the broker did not take all."""
        sent = 0
        if self.is_waiting:
            return "waiting for the broker"
        while batch := await self._waiting():
            turns = asyncio.Semaphore(_AT_ONCE)
            counts = await asyncio.gather(*(self._publish_in_order(events, turns) for events in _by_operation(batch)))
            sent += sum(counts)
            if sum(counts) < len(batch):
                self._failures += 1
                self._not_before = self._clock.now() + _PAUSES[min(self._failures, len(_PAUSES)) - 1]
                raise BrokerUnavailable(
                    f"The broker took {sent} events and then refused; the rest is kept and sent later."
                )
            self._failures = 0
        return f"{sent} published"

    async def _waiting(self) -> Sequence[OperationEvent]:
        waiting = select(OperationEvent).where(
            OperationEvent.published_at.is_(None), OperationEvent.type != EventType.LOG
        )
        async with self._database.reading() as session:
            return (await session.scalars(waiting.order_by(OperationEvent.id).limit(_BATCH))).all()

    async def _publish_in_order(self, events: Sequence[OperationEvent], turns: asyncio.Semaphore) -> int:
        """How many the broker took, from the first on."""
        taken: list[int] = []
        async with turns:
            for event in events:
                if not await self._send(event):
                    break
                taken.append(event.id)
        if taken:
            done = update(OperationEvent).where(OperationEvent.id.in_(taken)).values(published_at=self._clock.now())
            async with self._database.writing() as session:
                await session.execute(done)
        return len(taken)

    async def _send(self, event: OperationEvent) -> bool:
        key = str(event.operation_id)
        headers = {**self._headers, "Content-Type": "application/cloudevents+json"}
        try:
            answer = await self._http.post(
                self._url, params={"metadata.partitionKey": key}, json=cloud_event(event), headers=headers
            )
        except httpx.HTTPError as error:
            log.warning("event.not_published", operation_id=key, error=type(error).__name__)
            return False
        if answer.is_success:
            return True
        log.warning("event.not_published", operation_id=key, status=answer.status_code)
        return False


def cloud_event(event: OperationEvent) -> dict[str, Any]:
    """The event as CloudEvents 1.0 JSON. `id` is the same when it is sent again; `sequence` orders an operation's."""
    return {
        "specversion": "1.0",
        "id": f"{event.operation_id}-{event.sequence}",
        "source": f"/operations/{event.operation_id}",
        "type": _TYPES[event.type],
        "subject": str(event.operation_id),
        "time": event.created_at.isoformat(),
        "datacontenttype": "application/json",
        "partitionkey": str(event.operation_id),
        "sequence": str(event.sequence),
        "data": event.data,
    }


def _by_operation(events: Sequence[OperationEvent]) -> list[list[OperationEvent]]:
    found: dict[UUID, list[OperationEvent]] = defaultdict(list)
    for operation_id, several in groupby(events, key=lambda event: event.operation_id):
        found[operation_id] += several
    return list(found.values())
