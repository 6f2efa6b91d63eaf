"""Tells the message broker what happened to operations, clusters and deployments: CloudEvents 1.0 through Dapr.

At least once, and in order within an operation, a cluster or a deployment: an event is sent only after those before it
were taken. What cannot be sent now stays in the outbox and is tried again with growing pauses. Log lines are read from
the service, not published.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import httpx
import structlog
from sqlalchemy import select, update

from budcluster.config import Settings
from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import Database
from budcluster.kit.errors import UpstreamUnavailable
from budcluster.operations.models import EventType, OperationEvent, SubjectEvent

log = structlog.get_logger(__name__)

_BATCH: Final = 500
_AT_ONCE: Final = 8
_PAUSES: Final = tuple(timedelta(seconds=s) for s in (1, 2, 5, 10, 30, 60))
_Event = OperationEvent | SubjectEvent
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
            counts = await asyncio.gather(*(self._publish_in_order(events, turns) for events in _in_order(batch)))
            sent += sum(counts)
            if sum(counts) < len(batch):
                self._failures += 1
                self._not_before = self._clock.now() + _PAUSES[min(self._failures, len(_PAUSES)) - 1]
                raise BrokerUnavailable(
                    f"The broker took {sent} events and then refused; the rest is kept and sent later."
                )
            self._failures = 0
        return f"{sent} published"

    async def _waiting(self) -> list[_Event]:
        events = select(OperationEvent).where(
            OperationEvent.published_at.is_(None), OperationEvent.type != EventType.LOG
        )
        changes = select(SubjectEvent).where(SubjectEvent.published_at.is_(None))
        async with self._database.reading() as session:
            return [
                *await session.scalars(events.order_by(OperationEvent.id).limit(_BATCH)),
                *await session.scalars(changes.order_by(SubjectEvent.id).limit(_BATCH)),
            ]

    async def _publish_in_order(self, events: Sequence[_Event], turns: asyncio.Semaphore) -> int:
        """How many the broker took, from the first on. All are of one kind."""
        taken: list[int] = []
        async with turns:
            for event in events:
                if not await self._send(event):
                    break
                taken.append(event.id)
        if taken:
            kind = type(events[0])
            done = update(kind).where(kind.id.in_(taken)).values(published_at=self._clock.now())
            async with self._database.writing() as session:
                await session.execute(done)
        return len(taken)

    async def _send(self, event: _Event) -> bool:
        body = cloud_event(event)
        key = body["partitionkey"]
        headers = {**self._headers, "Content-Type": "application/cloudevents+json"}
        try:
            answer = await self._http.post(self._url, params={"metadata.partitionKey": key}, json=body, headers=headers)
        except httpx.HTTPError as error:
            log.warning("event.not_published", subject=key, error=type(error).__name__)
            return False
        if answer.is_success:
            return True
        log.warning("event.not_published", subject=key, status=answer.status_code)
        return False


def cloud_event(event: _Event) -> dict[str, Any]:
    """The event as CloudEvents 1.0 JSON. `id` is the same when it is sent again; `sequence` orders a subject's."""
    if isinstance(event, OperationEvent):
        source, subject, kind, sequence = "operations", event.operation_id, _TYPES[event.type], event.sequence
    else:
        source, subject, sequence = f"{event.subject_type.value}s", event.subject_id, event.id
        kind = f"budcluster.{event.subject_type.value}.{event.change}"
    return {
        "specversion": "1.0",
        "id": f"{subject}-{sequence}",
        "source": f"/{source}/{subject}",
        "type": kind,
        "subject": str(subject),
        "time": event.created_at.isoformat(),
        "datacontenttype": "application/json",
        "partitionkey": str(subject),
        "sequence": str(sequence),
        "data": event.data,
    }


def _in_order(events: Sequence[_Event]) -> list[list[_Event]]:
    """Those of one subject together, as they happened."""
    found: dict[UUID, list[_Event]] = defaultdict(list)
    for event in events:
        found[event.operation_id if isinstance(event, OperationEvent) else event.subject_id].append(event)
    return list(found.values())
