"""Long work for real: ten steps on the embedded engine, watched, cancelled, failed, retried, killed."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from budcluster.bootstrap import Service
from budcluster.config import Settings
from budcluster.kit.database import Database
from budcluster.operations.feeds import Feeds
from budcluster.operations.models import Operation, OperationLogLine, OperationStatus, StepStatus
from devstack.postgres import EmbeddedPostgres
from tests.fixtures.app import SettingsMaker, running
from tests.fixtures.workflows import close_leftovers
from tests.operations.demo import DEMO, STEPS, demo_service
from tests.operations.desk import Desk, cluster, eventually
from tests.operations.streams import Event, events_of

pytestmark = pytest.mark.timeout(300)

FINAL = {OperationStatus.SUCCEEDED, OperationStatus.FAILED, OperationStatus.CANCELLED}
ALL_STEPS = [step.name for step in STEPS]


@pytest.fixture
def marks(tmp_path: Path) -> Callable[[], list[str]]:
    """What the demo has done, in order."""

    def read() -> list[str]:
        file = tmp_path / "marks"
        return file.read_text().split() if file.exists() else []

    return read


@pytest.fixture
async def feeds(settings: Settings) -> AsyncIterator[Feeds]:
    """The service with the demo, at work in this process."""
    service = demo_service(settings)
    async with running(service):
        yield service.edge.service(Feeds)
    _close_leftovers(service)


def _close_leftovers(service: Service) -> None:
    host = service.long_work._host
    close_leftovers(host._runtime if host is not None else None)


async def _request(desk: Desk, folder: Path, *, manner: str = "polite", **options: Any) -> Operation:
    facts = {"folder": str(folder), "manner": manner}
    return await desk.request(kind="demo", steps=STEPS, workflow=DEMO, payload=facts, **options)


async def _ended(desk: Desk, operation: Operation, *, attempt: int = 1) -> Operation:
    async def is_over() -> bool:
        seen, _ = await desk.look(operation.id)
        return seen.status in FINAL and seen.attempt == attempt

    await eventually(is_over, within_s=90)
    return (await desk.look(operation.id))[0]


async def _appeared(path: Path) -> None:
    async def exists() -> bool:
        return await asyncio.to_thread(path.exists)

    await eventually(exists, within_s=90)


async def _statuses(desk: Desk, operation: Operation) -> list[StepStatus]:
    return [step.status for step in (await desk.look(operation.id))[1].values()]


async def test_ten_steps_are_watched_from_the_first_to_the_last(
    desk: Desk, feeds: Feeds, tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    (tmp_path / "go").touch()
    operation = await _request(desk, tmp_path)
    seen = [event async for event in events_of(feeds.listen(operation.id, after=0))]
    done = [event.data["name"] for event in seen if event.data.get("status") == "SUCCEEDED" and event.type == "step"]
    assert done == ALL_STEPS == marks()
    percents = [event.data["operation_percent"] for event in seen if event.type == "step"]
    assert percents == sorted(percents)
    assert (seen[-1].data["status"], seen[-1].data["percent"]) == ("SUCCEEDED", 100)
    lines = [line["text"] for event in seen if event.type == "log" for line in event.data["lines"]]
    assert {"working", "done"} <= set(lines)


async def test_cancel_stops_the_tool_politely_undoes_and_says_so(
    desk: Desk, feeds: Feeds, tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    operation = await _request(desk, tmp_path)
    await _appeared(tmp_path / "tool-is-up")
    await desk.cancel(operation.id)
    ended = await _ended(desk, operation)
    assert ended.status is OperationStatus.CANCELLED
    assert ended.result == {"undone": ["step_2"], "left": []}
    assert (tmp_path / "stopped-politely").exists()
    assert marks() == [*ALL_STEPS[:6], "undo_step_2"]
    statuses = await _statuses(desk, operation)
    # What came before the undone step still stands.
    assert statuses == [StepStatus.SUCCEEDED] * 2 + [StepStatus.CANCELLED] * 8


async def test_a_tool_that_does_not_listen_is_stopped_firmly(desk: Desk, feeds: Feeds, tmp_path: Path) -> None:
    operation = await _request(desk, tmp_path, manner="stubborn")
    await _appeared(tmp_path / "tool-is-up")
    await desk.cancel(operation.id)
    assert (await _ended(desk, operation)).status is OperationStatus.CANCELLED
    assert _tools(tmp_path) == []


async def test_a_failure_says_why_and_a_retry_does_only_what_is_missing(
    desk: Desk, feeds: Feeds, tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    (tmp_path / "go").touch()
    (tmp_path / "fail").touch()
    operation = await _request(desk, tmp_path)
    failed = await _ended(desk, operation)
    assert failed.status is OperationStatus.FAILED
    assert failed.error == {
        "type": "tool-broke",
        "detail": "The tool broke.",
        "next_step": "Remove the file named fail and retry.",
        "step": "step_9",
    }
    assert marks() == [*ALL_STEPS, "undo_step_2"]

    (tmp_path / "fail").unlink()
    await desk.retry(operation.id)
    assert (await _ended(desk, operation, attempt=2)).status is OperationStatus.SUCCEEDED
    assert marks()[11:] == ALL_STEPS[2:]


async def test_a_delete_stops_the_running_work_and_then_runs(
    desk: Desk, feeds: Feeds, tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    subject = cluster()
    operation = await _request(desk, tmp_path, subject=subject)
    await _appeared(tmp_path / "tool-is-up")
    other = tmp_path / "other"
    other.mkdir()
    (other / "go").touch()
    delete = await desk.request(
        subject, kind="delete_demo", steps=STEPS, workflow=DEMO, payload={"folder": str(other)}, supersedes=True
    )
    assert (await _ended(desk, delete)).status is OperationStatus.SUCCEEDED
    cancelled, _ = await desk.look(operation.id)
    deleted, _ = await desk.look(delete.id)
    assert cancelled.status is OperationStatus.CANCELLED
    assert cancelled.finished_at is not None
    assert deleted.started_at is not None
    assert cancelled.finished_at <= deleted.started_at


# --- processes that die -------------------------------------------------------------------------------------------


class Replica:
    """The service in a process of its own."""

    def __init__(self, settings: Settings, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._environment = {
            **os.environ,
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "SYMMETRIC_KEY_PATH": str(settings.symmetric_key_path),
            "RSA_PRIVATE_KEY_PATH": str(settings.rsa_private_key_path),
            "PORT": str(self.port),
        }
        self._log = log
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            argv = [sys.executable, "-m", "tests.operations.demo"]
            self.process = await asyncio.create_subprocess_exec(
                *argv, env=self._environment, cwd=Path(__file__).parents[2], stdout=log, stderr=log
            )

    async def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        await self.process.wait()


@pytest.fixture
async def replica(make_settings: SettingsMaker, tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Starts replicas; those that are left are killed."""
    made: list[Replica] = []

    async def start() -> Replica:
        made.append(Replica(make_settings(), tmp_path / f"replica-{len(made)}.log"))
        await made[-1].start()
        return made[-1]

    yield start
    for one in made:
        if one.process is not None and one.process.returncode is None:
            await one.send(signal.SIGKILL)


async def _watch(port: int, operation: Operation, *, after: int = 0, into: list[Event] | None = None) -> list[Event]:
    """What a listener sees until the operation ends or the service dies."""
    seen = [] if into is None else into
    path = f"http://127.0.0.1:{port}/operations/{operation.id}/events"
    async with httpx.AsyncClient(timeout=40) as web:
        with contextlib.suppress(httpx.TransportError):
            async with web.stream("GET", path, headers={"Last-Event-ID": str(after)}) as answer:
                assert answer.status_code == 200
                async for event in events_of(answer.aiter_bytes()):
                    seen.append(event)
    return seen


async def _is_ready(port: int) -> bool:
    async with httpx.AsyncClient() as web:
        try:
            return (await web.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
        except httpx.TransportError:
            return False


@pytest.mark.slow
async def test_work_goes_on_where_it_was_when_the_service_is_killed_in_mid_step(
    desk: Desk, replica: Callable[[], Any], tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    first = await replica()
    await eventually(lambda: _is_ready(first.port), within_s=90)
    operation = await _request(desk, tmp_path)
    seen: list[Event] = []
    watching = asyncio.create_task(_watch(first.port, operation, into=seen))
    await _appeared(tmp_path / "tool-is-up")
    await eventually(lambda: _has_begun(seen, "step_5"))
    started_at = (await desk.look(operation.id))[1]["step_5"].started_at
    await first.send(signal.SIGKILL)
    before = await watching

    await eventually(lambda: _tool_count(tmp_path, 0))
    (tmp_path / "go").touch()
    second = await replica()
    await eventually(lambda: _is_ready(second.port), within_s=90)
    after = await _watch(second.port, operation, after=before[-1].number)

    assert (await _ended(desk, operation)).status is OperationStatus.SUCCEEDED
    assert marks() == [*ALL_STEPS[:6], *ALL_STEPS[5:]]
    assert (await desk.look(operation.id))[1]["step_5"].started_at == started_at
    numbers = [event.number for event in before + after]
    assert numbers == list(range(1, len(numbers) + 1))
    assert after[-1].data["status"] == "SUCCEEDED"


@pytest.mark.slow
async def test_work_goes_on_after_an_orderly_restart_in_mid_step(
    desk: Desk, replica: Callable[[], Any], tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    first = await replica()
    operation = await _request(desk, tmp_path)
    await _appeared(tmp_path / "tool-is-up")
    seen: list[Event] = []
    watching = asyncio.create_task(_watch(first.port, operation, into=seen))
    await eventually(lambda: _has_begun(seen, "step_5"))
    await first.send(signal.SIGTERM)
    await watching
    assert _tools(tmp_path) == []
    (tmp_path / "go").touch()
    await replica()
    assert (await _ended(desk, operation)).status is OperationStatus.SUCCEEDED
    assert marks() == [*ALL_STEPS[:6], *ALL_STEPS[5:]]


@pytest.mark.slow
async def test_another_replica_takes_over_when_one_is_killed(
    desk: Desk, replica: Callable[[], Any], tmp_path: Path
) -> None:
    replicas = [await replica(), await replica()]
    for one in replicas:
        await eventually(lambda port=one.port: _is_ready(port), within_s=90)
    folders = [tmp_path / str(number) for number in range(12)]
    for folder in folders:
        folder.mkdir()
    operations = [await _request(desk, folder) for folder in folders]
    for folder in folders:
        await _appeared(folder / "tool-is-up")
    await replicas[0].send(signal.SIGKILL)
    for folder in folders:
        (folder / "go").touch()
    ended = [await _ended(desk, operation) for operation in operations]
    assert {one.status for one in ended} == {OperationStatus.SUCCEEDED}
    for folder in folders:
        done = (folder / "marks").read_text().split()
        # Only the step that was at work may have begun twice; none is missing.
        assert sorted(set(done)) == sorted(ALL_STEPS)
        assert [name for name in ALL_STEPS if done.count(name) > 1] in ([], ["step_5"])


@pytest.mark.slow
async def test_a_frozen_replica_that_wakes_up_stops_its_tool_and_spoils_nothing(
    desk: Desk, replica: Callable[[], Any], tmp_path: Path, marks: Callable[[], list[str]]
) -> None:
    frozen = await replica()
    operation = await _request(desk, tmp_path)
    await _appeared(tmp_path / "tool-is-up")
    frozen.process.send_signal(signal.SIGSTOP)
    await replica()
    # The engine gives a frozen owner up after half a minute.
    await eventually(lambda: _tool_count(tmp_path, 2), within_s=90)
    frozen.process.send_signal(signal.SIGCONT)
    await eventually(lambda: _tool_count(tmp_path, 1), within_s=90)
    assert (tmp_path / "stopped-politely").exists()
    (tmp_path / "go").touch()
    ended = await _ended(desk, operation)
    assert ended.status is OperationStatus.SUCCEEDED
    assert marks() == [*ALL_STEPS[:6], *ALL_STEPS[5:]]


@pytest.mark.slow
async def test_work_outlives_a_database_that_goes_away_in_mid_step(
    make_settings: SettingsMaker,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    marks: Callable[[], list[str]],
) -> None:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("own"), durable=True)
    await asyncio.to_thread(server.start)
    settings = make_settings().model_copy(update={"database_url": SecretStr(server.url("postgres"))})
    service = demo_service(settings)
    try:
        async with running(service):
            work = service.long_work
            desk = Desk(service.edge.database, work.operations, work.journals)
            operation = await _request(desk, tmp_path)
            await _appeared(tmp_path / "tool-is-up")
            await asyncio.to_thread(server.stop)
            (tmp_path / "go").touch()
            await eventually(lambda: _tool_count(tmp_path, 0))
            await asyncio.to_thread(server.start)
            ended = await _ended(desk, operation)
            assert ended.status is OperationStatus.SUCCEEDED
            lines = [line async for line in _log_lines(service.edge.database, operation)]
        assert "done" in lines
        # The step's result outlived the outage in memory: nothing was done twice.
        assert marks() == ALL_STEPS
    finally:
        await asyncio.to_thread(server.stop)
        _close_leftovers(service)


async def _log_lines(database: Database, operation: Operation) -> AsyncIterator[str]:
    async with database.reading() as session:
        wanted = select(OperationLogLine).where(OperationLogLine.operation_id == operation.id)
        for line in await session.scalars(wanted.order_by(OperationLogLine.number)):
            yield line.text


async def _tool_count(folder: Path, wanted: int) -> bool:
    return len(await asyncio.to_thread(_tools, folder)) == wanted


async def _has_begun(seen: list[Event], step: str) -> bool:
    return any(event.data.get("name") == step for event in seen)


def _tools(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
