"""Events on their way to the message broker, through a stand-in for the Dapr sidecar's publish route."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import select, update

from budcluster.kit.database import Database
from budcluster.operations import outbox
from budcluster.operations.models import EventType, OperationEvent, StepStatus, SubjectType
from budcluster.operations.publisher import BrokerUnavailable, Publisher
from tests.fixtures.app import SettingsMaker
from tests.operations.desk import Desk


@dataclass
class SidecarTwin:
    """Takes what is published, unless told to refuse. An ASGI application."""

    taken: list[dict[str, Any]] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    refuse_after: int | None = None
    forgets_to_answer: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        refused = self.refuse_after is not None and len(self.taken) >= self.refuse_after
        if not refused:
            self.taken.append(json.loads(body))
            self.paths.add(f"{scope['path']}?{scope['query_string'].decode()}".partition("=")[0])
            self.tokens.update(value.decode() for name, value in scope["headers"] if name == b"dapr-api-token")
        if self.forgets_to_answer:
            raise httpx.ReadTimeout("the answer was lost")
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 500 if refused else 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class MovableClock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def sidecar() -> SidecarTwin:
    return SidecarTwin()


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def publisher(
    database: Database, make_settings: SettingsMaker, sidecar: SidecarTwin, clock: MovableClock
) -> AsyncIterator[Publisher]:
    settings = make_settings(events={"pubsub": "bus"}, dapr_api_token="sidecar-token")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(sidecar)) as http:
        yield Publisher(database, http, settings, clock)


async def _some_work(desk: Desk, *, changes: int = 4) -> str:
    operation = await desk.request()
    for number in range(changes):
        await desk.mark(operation.id, "apply_terraform", StepStatus.RUNNING, percent=number)
    return str(operation.id)


async def _waiting(database: Database) -> int:
    async with database.reading() as session:
        return len((await session.scalars(select(OperationEvent).where(OperationEvent.published_at.is_(None)))).all())


def _sequences(sidecar: SidecarTwin, operation_id: str) -> list[int]:
    return [int(event["sequence"]) for event in sidecar.taken if event["subject"] == operation_id]


async def test_events_are_cloud_events_with_the_operation_as_key(
    desk: Desk, publisher: Publisher, sidecar: SidecarTwin
) -> None:
    operation_id = await _some_work(desk, changes=1)
    assert await publisher.publish() == "2 published"
    first, second = sidecar.taken
    assert first["specversion"] == "1.0"
    assert first["id"] == f"{operation_id}-1"
    assert first["source"] == f"/operations/{operation_id}"
    assert (first["type"], second["type"]) == ("budcluster.operation.changed", "budcluster.operation.step_changed")
    assert first["partitionkey"] == first["subject"] == operation_id
    assert first["data"]["status"] == "PENDING"
    assert sidecar.paths == {"/v1.0/publish/bus/budcluster-operations?metadata.partitionKey"}
    assert sidecar.tokens == {"sidecar-token"}


async def test_every_operation_s_events_come_in_order(desk: Desk, publisher: Publisher, sidecar: SidecarTwin) -> None:
    ids = await asyncio.gather(*(_some_work(desk, changes=9) for _ in range(5)))
    await publisher.publish()
    assert [_sequences(sidecar, one) for one in ids] == [list(range(1, 11))] * 5


async def test_what_the_broker_refused_is_kept_and_sent_later_in_order(
    desk: Desk, database: Database, publisher: Publisher, sidecar: SidecarTwin, clock: MovableClock
) -> None:
    operation_id = await _some_work(desk)
    sidecar.refuse_after = 2
    with pytest.raises(BrokerUnavailable):
        await publisher.publish()
    assert await _waiting(database) == 3
    sidecar.refuse_after = None
    assert await publisher.publish() == "waiting for the broker"
    clock.at += timedelta(seconds=2)
    assert await publisher.publish() == "3 published"
    assert _sequences(sidecar, operation_id) == [1, 2, 3, 4, 5]


async def test_pauses_grow_while_the_broker_is_away(
    desk: Desk, publisher: Publisher, sidecar: SidecarTwin, clock: MovableClock
) -> None:
    await _some_work(desk, changes=0)
    sidecar.refuse_after = 0
    pauses = []
    for _ in range(4):
        with pytest.raises(BrokerUnavailable):
            await publisher.publish()
        failed_at = clock.at
        while publisher.is_waiting:
            clock.at += timedelta(seconds=1)
        pauses.append((clock.at - failed_at).total_seconds())
    assert pauses == [1, 2, 5, 10]


async def test_an_event_whose_answer_was_lost_is_sent_again_with_the_same_id(
    desk: Desk, publisher: Publisher, sidecar: SidecarTwin, clock: MovableClock
) -> None:
    operation_id = await _some_work(desk, changes=0)
    sidecar.forgets_to_answer = True
    with pytest.raises(BrokerUnavailable):
        await publisher.publish()
    sidecar.forgets_to_answer = False
    clock.at += timedelta(seconds=2)
    await publisher.publish()
    assert [event["id"] for event in sidecar.taken] == [f"{operation_id}-1"] * 2


async def test_changes_of_clusters_and_deployments_are_published_beside_operations_and_in_order(
    desk: Desk, database: Database, publisher: Publisher, sidecar: SidecarTwin, clock: MovableClock
) -> None:
    cluster_id = uuid4()
    await _some_work(desk, changes=0)
    for health in ("UNREACHABLE", "HEALTHY"):
        async with database.writing() as session:
            await outbox.tell(
                session, SubjectType.CLUSTER, cluster_id, name="lab", change="health_changed", facts={"to": health}
            )
    sidecar.refuse_after = 1
    with pytest.raises(BrokerUnavailable):
        await publisher.publish()
    sidecar.refuse_after = None
    clock.at += timedelta(seconds=2)
    await publisher.publish()
    told = [event for event in sidecar.taken if event["subject"] == str(cluster_id)]
    assert [event["data"]["to"] for event in told] == ["UNREACHABLE", "HEALTHY"]
    assert {(event["type"], event["source"]) for event in told} == {
        ("budcluster.cluster.health_changed", f"/clusters/{cluster_id}")
    }
    assert int(told[0]["sequence"]) < int(told[1]["sequence"])
    assert await publisher.publish() == "0 published"


async def test_log_lines_are_not_published(desk: Desk, database: Database, publisher: Publisher) -> None:
    await _some_work(desk, changes=1)
    async with database.writing() as session:
        await session.execute(update(OperationEvent).where(OperationEvent.sequence == 2).values(type=EventType.LOG))
    assert await publisher.publish() == "1 published"
