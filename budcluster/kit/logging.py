"""Logs: one line an event on standard error, JSON or human, with secrets masked, written by a thread of its own.

`configure` is called once, by whoever starts the process. Code logs with `structlog.get_logger(__name__)` and
events named `noun.past_verb`; what libraries say through the standard library's logging takes the same way out.
A request never waits for a slow terminal or pipe: lines are queued, and when the queue is full they are dropped
and counted.
"""

import atexit
import json
import logging
import queue
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TextIO

import structlog

from budcluster.config import LogFormat, LogSettings
from budcluster.kit.redaction import Redactor

_MOST_QUEUED: Final = 20_000
"""Lines in memory at most, some 10 MB: a reader that hangs must not eat the process."""
_QUIET_LIBRARIES: Final = ("httpx", "httpcore", "alembic", "kubernetes", "urllib3", "asyncio")
"""They tell at INFO what our own events already say."""

Event = MutableMapping[str, Any]


class LinePipeline:
    """A queue and the thread that masks, renders and writes what comes out of it."""

    def __init__(self, stream: TextIO, render: Callable[[dict[str, Any]], str], redactor: Redactor) -> None:
        self._stream = stream
        self._render = render
        self._redactor = redactor
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Hand over one event; never waits."""
        if self._queue.qsize() >= _MOST_QUEUED:
            self._dropped += 1
            return
        self._queue.put(event)

    def close(self) -> None:
        """Write what is queued, then end the thread. Safe to repeat."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout=5)

    def _write_all(self) -> None:
        while (event := self._queue.get()) is not None:
            self._write(event)
            if self._dropped and self._queue.empty():
                self._tell_dropped()
        if self._dropped:
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        count, self._dropped = self._dropped, 0
        self._write({"event": "log.dropped", "level": "warning", "count": count, "timestamp": _now()})

    def _write(self, event: Event) -> None:
        try:
            line = self._render(self._redactor.scrub(plain(structlog.processors.format_exc_info(None, "", event))))
        except Exception as error:  # noqa: BLE001 - a background loop: one strange event must not silence the rest
            line = json.dumps({"event": "log.unrenderable", "level": "error", "error": type(error).__name__})
        try:
            self._stream.write(line + "\n")
            if self._queue.empty():
                self._stream.flush()
        except (OSError, ValueError):
            # Nobody reads any more; a log that cannot be written is no reason to stop serving.
            return


class _FromLibraries(logging.Handler):
    """Brings records of the standard library's logging onto the same way."""

    def __init__(self, pipeline: LinePipeline) -> None:
        super().__init__()
        self._pipeline = pipeline

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - wrong arguments of somebody else's log call
            text = str(record.msg)
        event: dict[str, Any] = {
            "event": text,
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            **structlog.contextvars.get_contextvars(),
        }
        if record.exc_info:
            event["exc_info"] = record.exc_info
        self._pipeline.put(event)


def configure(settings: LogSettings, redactor: Redactor | None = None, stream: TextIO | None = None) -> LinePipeline:
    """Route every log line of this process through one pipeline; returns it, to be closed last."""
    out = stream or sys.stderr
    is_human = settings.format is LogFormat.HUMAN or (settings.format is LogFormat.AUTO and out.isatty())
    pipeline = LinePipeline(out, _human(out) if is_human else _as_json, redactor or Redactor())
    level = logging.getLevelNamesMapping()[settings.level]

    def hand_over(_: Any, __: str, event: Event) -> Event:
        pipeline.put(event)
        raise structlog.DropEvent

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _stamp,
            _keep_exception,
            hand_over,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_FromLibraries(pipeline)]
    root.setLevel(level)
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    atexit.register(pipeline.close)
    return pipeline


def _stamp(_: Any, __: str, event: Event) -> Event:
    event["timestamp"] = _now()
    return event


def _keep_exception(_: Any, __: str, event: Event) -> Event:
    # The writing thread cannot ask which exception the logging one is handling.
    if event.get("exc_info") is True:
        event["exc_info"] = sys.exc_info()
    return event


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def plain(value: Any) -> Any:
    """Only what JSON knows, so that masking sees every character that will be written."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def _as_json(event: dict[str, Any]) -> str:
    head = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return json.dumps({**head, **event}, separators=(",", ":"))


def _human(out: TextIO) -> Callable[[dict[str, Any]], str]:
    renderer = structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=28)
    return lambda event: str(renderer(None, "", event))
