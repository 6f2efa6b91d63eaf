"""The REST API as the command line sees it: `BUDCLUSTER_URL` and `BUDCLUSTER_TOKEN` say where and as whom."""

import atexit
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from uuid import UUID

import httpx
import typer
from rich.console import Console

DEFAULT_URL: Final = "http://127.0.0.1:9082"
USAGE: Final = 2
UNREACHABLE: Final = 3
REFUSED: Final = 4
INTERRUPTED: Final = 130
_CALL_FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL)
_TIMEOUT: Final = httpx.Timeout(30, connect=5)
_STREAM_TIMEOUT: Final = httpx.Timeout(60, connect=5)
"""Streams of events have a heartbeat every 15 s."""
RECONNECT_S: Final = 1.0
"""Between two tries to reach a service that went away."""
PATIENCE_S: Final = 300.0
"""How long such a service is waited for."""

errors = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str, code: int) -> NoReturn:
    """Say why on standard error and end with the code."""
    errors.print(f"budcluster: {message}", markup=False)
    raise typer.Exit(code)


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event."""

    id: str
    type: str
    data: Any


class CutOff(Exception):
    """A stream of events broke, or could not go on; the message says why."""


class Api:
    """Calls the service. Every failure ends the program with a sentence and the right exit code."""

    def __init__(self) -> None:
        self.url = os.environ.get("BUDCLUSTER_URL", DEFAULT_URL).rstrip("/")
        headers = {"Accept": "application/json"}
        if token := os.environ.get("BUDCLUSTER_TOKEN", "").strip():
            if not (token.isascii() and token.isprintable()):
                fail("BUDCLUSTER_TOKEN is no token; `budcluster tokens create` makes one.", USAGE)
            headers["Authorization"] = f"Bearer {token}"
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT)
        except httpx.InvalidURL:
            fail("BUDCLUSTER_URL is no URL; it looks like http://127.0.0.1:9082.", USAGE)
        atexit.register(self._http.close)

    def get(self, path: str, **query: Any) -> Any:
        """JSON of a GET."""
        return self._json("GET", path, params={key: value for key, value in query.items() if value is not None})

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """JSON of a POST, or None where the answer is empty."""
        return self._json("POST", path, json=body, params={k: v for k, v in query.items() if v is not None})

    def patch(self, path: str, body: Any, **query: Any) -> Any:
        """JSON of a PATCH."""
        return self._json("PATCH", path, json=body, params={k: v for k, v in query.items() if v is not None})

    def delete(self, path: str, **query: Any) -> Any:
        """JSON of a DELETE, or None where the answer is empty."""
        return self._json("DELETE", path, params={key: value for key, value in query.items() if value is not None})

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        """Items of a list, page after page."""
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, **query)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def find(self, collection: str, name_or_id: str) -> Any:
        """The resource with this id or, else, this name. Ends the program when there is none, or more than one."""
        if (resource_id := _uuid(name_or_id)) is not None:
            return self.get(f"/{collection}/{resource_id}")
        found = self.get(f"/{collection}", name=name_or_id, limit=2)["items"]
        if not found:
            fail(f"there is no {collection.removesuffix('s')} named {name_or_id}.", REFUSED)
        if len(found) > 1:
            ids = ", ".join(item["id"] for item in found)
            fail(f"several {collection} are named {name_or_id}; use the id ({ids}).", REFUSED)
        return found[0]

    @contextmanager
    def stream(self, path: str, *, headers: dict[str, str], **query: Any) -> Iterator[httpx.Response]:
        """An answer that is read while it arrives."""
        try:
            with self._opened(path, headers, query) as answer:
                if answer.is_error:
                    answer.read()
                    self._refuse(answer)
                yield answer
        except _CALL_FAILURES as error:
            self._unreachable(error)

    def await_answer(self) -> None:
        """Wait until the service answers anything; where that takes too long, the next call says that it does not."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            time.sleep(RECONNECT_S)
            with suppress(*_CALL_FAILURES):
                self._http.get("/healthz")
                return

    def events(self, path: str, *, after: str | None = None, **query: Any) -> Iterator[ServerEvent]:
        """Server-sent events of one connection. Raises CutOff when it breaks, or cannot go on `after` just now."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        try:
            with self._opened(path, headers, query) as answer:
                if answer.is_error:
                    answer.read()
                    if after and answer.status_code >= 500:
                        raise CutOff(f"the service answered {answer.status_code}")
                    self._refuse(answer)
                yield from _parsed(answer.iter_lines())
        except _CALL_FAILURES as error:
            raise CutOff(str(error) or type(error).__name__) from error

    def _opened(
        self, path: str, headers: dict[str, str], query: dict[str, Any]
    ) -> AbstractContextManager[httpx.Response]:
        params = {key: value for key, value in query.items() if value is not None}
        return self._http.stream("GET", path, params=params, headers=headers, timeout=_STREAM_TIMEOUT)

    def _json(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._http.request(method, path, **options)
        except _CALL_FAILURES as error:
            self._unreachable(error)
        if answer.is_error:
            self._refuse(answer)
        try:
            return answer.json() if answer.content else None
        except ValueError:
            fail(f"what answers at {self.url} is not this service; is BUDCLUSTER_URL right?", UNREACHABLE)

    def _unreachable(self, error: Exception) -> NoReturn:
        reason = str(error) or type(error).__name__
        fail(f"{self.url} cannot be reached ({reason}); is the service up, and is BUDCLUSTER_URL right?", UNREACHABLE)

    def _refuse(self, answer: httpx.Response) -> NoReturn:
        try:
            problem = answer.json()
            message = problem.get("detail") or problem["title"]
            causes = [(cause.get("pointer", ""), cause.get("detail", "")) for cause in problem.get("errors", [])]
            reasons = [f"  {where}: {why}" for where, why in causes if why.rstrip(".") != message.rstrip(".")]
        except (ValueError, KeyError, AttributeError):
            message, reasons = f"the service answered {answer.status_code}.", []
        if answer.status_code == 401:
            message += " Set BUDCLUSTER_TOKEN."
        fail("\n".join([message, *reasons]), REFUSED)


def _parsed(lines: Iterator[str]) -> Iterator[ServerEvent]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name:
                fields[name] = fields[name] + "\n" + value if name in fields else value.removeprefix(" ")
        elif "data" in fields:
            data = json.loads(fields["data"])
            yield ServerEvent(fields.get("id", ""), fields.get("event", "message"), data)
            fields = {}


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
