"""One HTTP exchange over raw ASGI: the request as handlers read it, the response as they give it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson
import yaml

from sandbox.kubernetes import protobuf
from sandbox.kubernetes.errors import ApiError, BadRequest, UnsupportedMediaType
from sandbox.kubernetes.tokens import ANONYMOUS, User

Obj = dict[str, Any]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_TRUE = frozenset({"true", "1", "t"})


class Request:
    """Method, path, query, headers and body of a request, who sends it, and what its sender is warned of."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope.get("method", "GET")
        self.path: str = unquote(scope["path"])
        self.query_string: str = scope.get("query_string", b"").decode()
        self.pairs = parse_qsl(self.query_string, keep_blank_values=True)
        self.query = dict(self.pairs)
        self.headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.user: User = ANONYMOUS
        self.warnings: list[str] = []
        self._body: bytes | None = None

    def flag(self, name: str) -> bool:
        """A boolean query parameter; Python's asyncio client sends `True`."""
        return self.query.get(name, "").lower() in _TRUE

    def number(self, name: str) -> int | None:
        """A whole-number query parameter. Raises BadRequest."""
        text = self.query.get(name)
        if not text:
            return None
        try:
            return int(text)
        except ValueError as error:
            raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax') from error

    @property
    def is_dry_run(self) -> bool:
        """Whether nothing is to be stored."""
        return self.query.get("dryRun") == "All"

    @property
    def content_type(self) -> str:
        """The media type without its parameters."""
        kind: str = self.headers.get("content-type", "").partition(";")[0].strip()
        return kind

    @property
    def field_manager(self) -> str:
        """Who the written fields belong to: the parameter, or the first word of the user agent."""
        agent: str = self.headers.get("user-agent", "unknown").partition("/")[0]
        return self.query.get("fieldManager") or agent[:128] or "unknown"

    async def body(self) -> bytes:
        """The whole body; read once, as it may be asked for again."""
        if self._body is None:
            chunks: list[bytes] = []
            while True:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    break
                chunks.append(message.get("body", b""))
                if not message.get("more_body"):
                    break
            self._body = b"".join(chunks)
        return self._body

    async def document(self) -> Any:
        """The body as data: JSON, YAML, or the protobuf of a few kinds. Raises BadRequest, UnsupportedMediaType."""
        raw = await self.body()
        if self.content_type == "application/vnd.kubernetes.protobuf" or raw.startswith(protobuf.MAGIC):
            return protobuf.decode(raw) if raw else {}
        if raw and self.content_type and not any(word in self.content_type for word in ("json", "yaml")):
            known = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
            raise UnsupportedMediaType(
                f"the body of the request was in an unknown format - accepted media types include: {known}"
            )
        try:
            return orjson.loads(raw) if raw.strip() else {}
        except orjson.JSONDecodeError as error:
            if "yaml" not in self.content_type:
                raise BadRequest(f"couldn't get version/kind; json parse error: {error}") from error
        try:
            return yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 -- both are safe
        except yaml.YAMLError as error:
            raise BadRequest(f"error decoding YAML: {error}") from error

    async def object(self) -> Obj:
        """The body as one object. Raises BadRequest."""
        document = await self.document()
        if not isinstance(document, dict):
            raise BadRequest("the body of the request is not an object")
        return document

    async def disconnected(self) -> None:
        """Returns when the client has gone away."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


@dataclass(frozen=True, slots=True)
class Response:
    """Status, headers, and a body that is whole or comes in pieces."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)

    async def send(self, send: Send, *, warnings: Iterable[str] = ()) -> None:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        for text in warnings:
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            headers.append((b"warning", f'299 - "{quoted}"'.encode("latin-1", "replace")))
        if isinstance(self.body, bytes):
            headers.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if isinstance(self.body, bytes):
            await send({"type": "http.response.body", "body": self.body})
            return
        async for chunk in self.body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def json_response(document: Any, *, status: int = 200) -> Response:
    headers = {"content-type": "application/json"}
    return Response(status, document if isinstance(document, bytes) else orjson.dumps(document), headers)


def text_response(text: str, *, status: int = 200) -> Response:
    """A plain text answer."""
    return Response(status, text.encode(), {"content-type": "text/plain; charset=utf-8"})


def error_response(error: ApiError) -> Response:
    """The answer that carries the error."""
    headers = {"content-type": "application/json"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return Response(error.code, orjson.dumps(error.status()), headers)


def success(kind: str, group: str, name: str, uid: str) -> Obj:
    """The Status of a deletion that is done."""
    details = {"name": name, "group": group, "kind": kind, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {field: value for field, value in details.items() if value},
    }
