"""How objects leave the server: plain, as tables, as metadata alone, and already encoded where that saves time."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from sandbox.kubernetes import events, tables
from sandbox.kubernetes.clock import Clock
from sandbox.kubernetes.errors import BadRequest, Expired
from sandbox.kubernetes.history import Event
from sandbox.kubernetes.http import Request
from sandbox.kubernetes.resources import EVENTS_GROUP
from sandbox.kubernetes.routing import Target
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]
View = Literal["", "Table", "PartialObjectMetadata"]


def view_of(request: Request) -> View:
    """What the Accept header asks for, by the first alternative that is known here."""
    for alternative in request.headers.get("accept", "").split(","):
        if match := re.search(r"as=(Table|PartialObjectMetadata)(List)?\b", alternative):
            return "Table" if match[1] == "Table" else "PartialObjectMetadata"
        if "as=" not in alternative and "json" in alternative:
            return ""
    return ""


class Documents:
    """Encodes stored objects, each version once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clock: Clock = store.clock
        self._encoded: dict[str, tuple[str, bytes]] = {}
        store.subscribe(self._forget)

    def _forget(self, event: Event) -> None:
        if event.type == "DELETED":
            self._encoded.pop(event.obj["metadata"]["uid"], None)

    def encode(self, obj: Obj, target: Target) -> bytes:
        """A stored object in the version of the URL."""
        if obj.get("apiVersion") != target.api_version:
            return orjson.dumps(self.converted(obj, target))
        meta = obj["metadata"]
        known = self._encoded.get(meta["uid"])
        if known is None or known[0] != meta["resourceVersion"]:
            known = (meta["resourceVersion"], orjson.dumps(obj))
            self._encoded[meta["uid"]] = known
        return known[1]

    def converted(self, obj: Obj, target: Target) -> Obj:
        """The object in the version of the URL."""
        if target.group == EVENTS_GROUP:
            return events.to_events_v1(obj)
        return {**obj, "apiVersion": target.api_version}

    def one(self, obj: Obj, target: Target, request: Request) -> bytes:
        """The body of a read of one object."""
        view = view_of(request)
        if view == "Table":
            return orjson.dumps(self.table([obj], target, request, metadata=_version(obj)))
        if view == "PartialObjectMetadata":
            return orjson.dumps(partial(obj))
        if request.is_dry_run:
            return orjson.dumps(self.converted(obj, target))
        return self.encode(obj, target)

    def many(self, objects: Sequence[Obj], target: Target, request: Request, metadata: Obj) -> bytes:
        """The body of a list."""
        view = view_of(request)
        if view == "Table":
            return orjson.dumps(self.table(objects, target, request, metadata=metadata))
        if view == "PartialObjectMetadata":
            items: list[Any] = [partial(obj) for obj in objects]
            kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
        else:
            items = [orjson.Fragment(self.encode(obj, target)) for obj in objects]
            kind, version = f"{target.kind.kind}List", target.api_version
        return orjson.dumps({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items})

    def table(
        self, objects: Sequence[Obj], target: Target, request: Request, *, metadata: Obj, headless: bool = False
    ) -> Obj:
        """The objects as rows, as kubectl shows them."""
        include = request.query.get("includeObject", "Metadata")
        if include == "Object" and objects and objects[0]["apiVersion"] != target.api_version:
            objects = [self.converted(obj, target) for obj in objects]
        now = self._clock.now()
        return tables.table(target.kind, objects, now=now, metadata=metadata, include=include, headless=headless)


def partial(obj: Obj) -> Obj:
    """An object as a PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _version(obj: Obj) -> Obj:
    return {"resourceVersion": obj["metadata"].get("resourceVersion", "")}


@dataclass(frozen=True, slots=True)
class Page:
    """Where a paged list goes on: after this object, in the state of that version."""

    version: int
    namespace: str
    name: str

    def token(self) -> str:
        """What a client sends to go on here."""
        raw = orjson.dumps({"v": "meta.k8s.io/v1", "rv": self.version, "start": f"{self.namespace}/{self.name}\u0000"})
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def page_after(token: str, store: Store, kind: str) -> Page:
    """Read a continue token. Raises BadRequest, and Expired when the history no longer reaches back to it."""
    try:
        said = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = said["start"].rstrip("\u0000").partition("/")
        page = Page(int(said["rv"]), namespace, name)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadRequest(f"continue key is not valid: {error}") from error
    try:
        store.events_since(kind, page.version)
    except Expired as error:
        raise Expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list "
            "without the continue parameter, or use the continue token in this response to retrieve the remainder of "
            "the results. Continuing with the provided token results in an inconsistent list - objects that were "
            "created, modified, or deleted between the time the first chunk was returned and now may show up in the "
            "list."
        ) from error
    return page
