"""Logs: one line an event, masked, whoever wrote it, and never in a request's way."""

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
import structlog

from budcluster.config import LogFormat, LogSettings
from budcluster.kit.logging import LinePipeline, configure
from budcluster.kit.redaction import Redactor

SECRET = "canary-9f31c7-secret"


@pytest.fixture
def restored() -> Iterator[None]:
    """Logging as it was, afterwards."""
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.configure(**configuration)


Written = Callable[[], list[str]]


@pytest.fixture
def start(restored: None) -> Callable[..., tuple[LinePipeline, Written]]:
    def begin(form: LogFormat = LogFormat.JSON, level: str = "INFO") -> tuple[LinePipeline, Written]:
        out = io.StringIO()
        pipeline = configure(LogSettings(format=form, level=level), Redactor([SECRET]), out)

        def lines() -> list[str]:
            pipeline.close()
            return out.getvalue().splitlines()

        return pipeline, lines

    return begin


def test_an_event_is_one_line_of_json(start: Any) -> None:
    _, lines = start()
    structlog.get_logger().info("cluster.registered", cluster_id=UUID(int=1), text="two\nlines", facts={"a": {1}})
    (line,) = lines()
    event = json.loads(line)
    assert event["event"] == "cluster.registered"
    assert event["level"] == "info"
    assert event["cluster_id"] == str(UUID(int=1))
    assert event["facts"] == {"a": [1]}
    assert event["timestamp"].endswith("+00:00")


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Kind(Enum):
    PLAIN = "plain"


@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.HUMAN])
def test_members_of_enums_are_told_as_their_values_at_any_depth(start: Any, form: LogFormat) -> None:
    _, lines = start(form)
    structlog.get_logger().info("cluster.seen", colour=Colour.RED, deep={Kind.PLAIN: [Kind.PLAIN, {"size": Size.BIG}]})
    logging.getLogger("some.library").warning("it is %s", Colour.RED)
    seen, said = lines()
    assert not [name for name in ("Colour", "Size", "Kind") if name in seen + said]
    if form is LogFormat.JSON:
        event = json.loads(seen)
        assert (event["colour"], event["deep"]) == ("red", {"plain": ["plain", {"size": 3}]})
    else:
        assert "colour=red" in seen
        assert "deep={'plain': ['plain', {'size': 3}]}" in seen


def test_secrets_are_masked_wherever_they_stand(start: Any) -> None:
    _, lines = start()
    log = structlog.get_logger()
    log.info("a.b", value=f"x {SECRET} y", nested={"list": [SECRET]}, password="hunter2hunter2")
    logging.getLogger("library").warning("connecting with %s", SECRET)
    try:
        int(SECRET)
    except ValueError:
        log.exception("c.d")
    written = lines()
    assert len(written) == 3
    assert not [line for line in written if SECRET in line or "hunter2" in line]
    assert "ValueError" in json.loads(written[2])["exception"]


def test_libraries_take_the_same_way(start: Any) -> None:
    _, lines = start()
    structlog.contextvars.bind_contextvars(request_id="r-1")
    logging.getLogger("uvicorn.error").info("listening on %s", "somewhere")
    structlog.contextvars.clear_contextvars()
    (line,) = lines()
    assert json.loads(line) | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "listening on somewhere",
        "logger": "uvicorn.error",
        "request_id": "r-1",
    }


def test_the_level_holds_for_everybody(start: Any) -> None:
    _, lines = start(level="WARNING")
    structlog.get_logger().info("too.quiet")
    logging.getLogger("library").info("too quiet")
    structlog.get_logger().warning("loud.enough")
    assert [json.loads(line)["event"] for line in lines()] == ["loud.enough"]


def test_people_get_a_readable_line(start: Any) -> None:
    _, lines = start(form=LogFormat.HUMAN)
    structlog.get_logger().info("cluster.registered", name="lab")
    (line,) = lines()
    assert "cluster.registered" in line
    assert "name=lab" in line


def test_one_strange_value_does_not_silence_the_rest(start: Any) -> None:
    class Hostile:
        def __str__(self) -> str:
            raise ValueError

    _, lines = start()
    structlog.get_logger().info("strange.value", value=Hostile())
    structlog.get_logger().info("next.one")
    assert [json.loads(line)["event"] for line in lines()] == ["log.unrenderable", "next.one"]


class _Stuck(io.StringIO):
    """A terminal that somebody has paused."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.released.wait(10)
        return super().write(text)


def test_a_reader_that_hangs_costs_lines_and_never_time() -> None:
    out = _Stuck()
    pipeline = LinePipeline(out, json.dumps, Redactor())
    started = time.perf_counter()
    for number in range(25_000):
        pipeline.put({"event": "line.written", "number": number})
    assert time.perf_counter() - started < 5
    out.released.set()
    pipeline.close()
    written = [json.loads(line) for line in out.getvalue().splitlines()]
    dropped = [event["count"] for event in written if event["event"] == "log.dropped"]
    assert dropped
    assert sum(dropped) + len(written) - len(dropped) == 25_000
