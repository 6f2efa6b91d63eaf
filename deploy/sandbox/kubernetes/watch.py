"""Watches: what happened since a version, what happens from now on, and bookmarks in between."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import orjson

from sandbox.kubernetes.documents import Documents, partial, view_of
from sandbox.kubernetes.errors import ApiError, BadRequest, Expired
from sandbox.kubernetes.history import Event
from sandbox.kubernetes.http import Request
from sandbox.kubernetes.routing import Target
from sandbox.kubernetes.selectors import FieldSelector, LabelSelector
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Watches:
    """Streams events to clients. `cut()` ends all streams that are open, as a dying connection would."""

    def __init__(self, store: Store, documents: Documents, *, bookmark_s: float = 60.0) -> None:
        self._store = store
        self._documents = documents
        self._bookmark_s = bookmark_s
        self._open: set[asyncio.Queue[Event | None]] = set()

    def cut(self) -> int:
        """End every open stream; returns how many there were."""
        for queue in self._open:
            queue.put_nowait(None)
        return len(self._open)

    def stream(
        self, request: Request, target: Target, labels: LabelSelector, fields: FieldSelector
    ) -> AsyncIterator[bytes]:
        """The lines of one watch. Raises BadRequest for parameters that do not fit together."""
        initial = request.flag("sendInitialEvents")
        if "sendInitialEvents" in request.query and request.query.get("resourceVersionMatch") != "NotOlderThan":
            raise BadRequest(
                "sendInitialEvents is forbidden: resourceVersionMatch is required when sendInitialEvents is set"
            )
        version = request.query.get("resourceVersion", "")
        seconds = request.number("timeoutSeconds") or random.randint(1800, 3600)
        view = _View(self._documents, request, target, labels, fields)
        # Subscribing and reading the past happen in one go, before anything else may be written.
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        end = self._store.subscribe(queue.put_nowait, kinds=[target.kind.key])
        first: list[bytes]
        if initial or version in {"", "0"}:
            listed = self._store.list(target.kind, target.namespace or None, labels=labels, fields=fields)
            first = [view.line("ADDED", obj) for obj in listed]
            if initial:
                first.append(view.bookmark(self._store.resource_version, is_initial_end=True))
        else:
            try:
                past = self._store.events_since(target.kind, version)
                first = [line for event in past for line in view.lines(event)]
            except (Expired, ValueError) as error:
                end()
                return _only(_error_line(error))
        return self._run(queue, end, first, view, request, float(seconds))

    async def _run(
        self,
        queue: asyncio.Queue[Event | None],
        end: Callable[[], None],
        first: list[bytes],
        view: "_View",
        request: Request,
        seconds: float,
    ) -> AsyncIterator[bytes]:
        self._open.add(queue)
        gone = asyncio.ensure_future(request.disconnected())
        gone.add_done_callback(lambda _: queue.put_nowait(None))
        loop = asyncio.get_running_loop()
        deadline, bookmark = loop.time() + seconds, loop.time() + self._bookmark_s
        try:
            # An empty chunk sends the headers, so that clients know the watch stands.
            yield b"".join(first)
            while (left := deadline - loop.time()) > 0:
                try:
                    async with asyncio.timeout(max(0.0, min(left, bookmark - loop.time()))):
                        event = await queue.get()
                except TimeoutError:
                    bookmark = loop.time() + self._bookmark_s
                    if request.flag("allowWatchBookmarks"):
                        yield view.bookmark(self._store.resource_version)
                    continue
                if event is None:
                    return
                for line in view.lines(event):
                    yield line
        finally:
            end()
            gone.cancel()
            self._open.discard(queue)


class _View:
    """One watch's idea of which objects it sees, and how."""

    def __init__(
        self, documents: Documents, request: Request, target: Target, labels: LabelSelector, fields: FieldSelector
    ) -> None:
        self._documents = documents
        self._request = request
        self._target = target
        self._labels = labels
        self._fields = fields
        self._view = view_of(request)
        self._has_columns = False

    def lines(self, event: Event) -> Iterator[bytes]:
        """Nothing, or the one line that tells this watcher: leaving the selection is DELETED, entering it is ADDED."""
        namespace = self._target.namespace
        if namespace and self._target.kind.namespaced and event.obj["metadata"].get("namespace") != namespace:
            return
        sees = self._selects(event.obj)
        if event.type == "ADDED":
            if sees:
                yield self.line("ADDED", event.obj)
            return
        saw = event.old is not None and self._selects(event.old)
        if event.type == "DELETED" or (saw and not sees):
            if saw:
                yield self.line("DELETED", event.obj)
        elif sees:
            yield self.line("MODIFIED" if saw else "ADDED", event.obj)

    def line(self, kind: str, obj: Obj) -> bytes:
        shown: Any
        if self._view == "Table":
            version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            headless, self._has_columns = self._has_columns, True
            shown = self._documents.table([obj], self._target, self._request, metadata=version, headless=headless)
        elif self._view == "PartialObjectMetadata":
            shown = partial(obj)
        elif kind == "DELETED":
            shown = self._documents.converted(obj, self._target)
        else:
            shown = orjson.Fragment(self._documents.encode(obj, self._target))
        return orjson.dumps({"type": kind, "object": shown}) + b"\n"

    def bookmark(self, version: int, *, is_initial_end: bool = False) -> bytes:
        meta: Obj = {"resourceVersion": str(version), "creationTimestamp": None}
        if is_initial_end:
            meta["annotations"] = {INITIAL_EVENTS_END: "true"}
        obj: Obj = {"kind": self._target.kind.kind, "apiVersion": self._target.api_version, "metadata": meta}
        if self._view == "Table":
            obj = self._documents.table([], self._target, self._request, metadata={"resourceVersion": str(version)})
            obj["rows"] = [{"cells": [], "object": partial({"metadata": meta})}]
        elif self._view == "PartialObjectMetadata":
            obj = partial(obj)
        return orjson.dumps({"type": "BOOKMARK", "object": obj}) + b"\n"

    def _selects(self, obj: Obj) -> bool:
        return self._labels.matches(obj["metadata"].get("labels")) and self._fields.matches(obj)


async def _only(line: bytes) -> AsyncIterator[bytes]:
    yield line


def _error_line(error: Exception) -> bytes:
    status = (
        error.status() if isinstance(error, ApiError) else BadRequest(f"invalid resource version: {error}").status()
    )
    return orjson.dumps({"type": "ERROR", "object": status}) + b"\n"
