"""A small HTTPS server that answers as a test tells it, and remembers what it was asked."""

import asyncio
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import trustme

from budcluster.kube.kubeconfig import Kubeconfig


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    content: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] | None = None
    """Sent one by one instead of the content; the stream then ends."""
    cut: bool = False
    """Break the connection instead of ending the answer."""


def status(code: int, reason: str, message: str = "because", **headers: str) -> Answer:
    content = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return Answer(content, code, {name.replace("_", "-"): value for name, value in headers.items()})


class ApiServer:
    def __init__(self, authority: trustme.CA, name: str = "127.0.0.1") -> None:
        self.authority = authority
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Answer] = lambda asked: Answer({"path": asked.path})
        self.port = 0
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(self.context)

    def config(self, **changes: Any) -> Kubeconfig:
        settings: dict[str, Any] = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate_authority": self.authority.cert_pem.bytes(),
            "token": "canary-bearer-token",
        }
        return Kubeconfig(**{**settings, **changes})

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request, *lines = head.decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                method, target, _ = request.split(" ")
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                parts = urlsplit(target)
                asked = Asked(method, parts.path, dict(parse_qsl(parts.query)), headers, body)
                self.asked.append(asked)
                answer = self.answer(asked)
                self._send(writer, answer)
                await writer.drain()
                if answer.cut:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _send(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        if answer.cut and answer.chunks is None:
            return
        content = answer.content if isinstance(answer.content, bytes) else json.dumps(answer.content).encode()
        pieces = answer.chunks if answer.chunks is not None else [content]
        headers = {"transfer-encoding": "chunked", **answer.headers}
        writer.write(f"HTTP/1.1 {answer.status} X\r\n".encode())
        writer.write("".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n")
        for piece in pieces:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if not answer.cut:
            writer.write(b"0\r\n\r\n")


@asynccontextmanager
async def serving(server: ApiServer) -> AsyncIterator[ApiServer]:
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=server.context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()


def require_client_certificate(server: ApiServer, authority: trustme.CA) -> None:
    server.context.verify_mode = ssl.CERT_REQUIRED
    with tempfile.NamedTemporaryFile() as file:
        file.write(authority.cert_pem.bytes())
        file.flush()
        server.context.load_verify_locations(file.name)
