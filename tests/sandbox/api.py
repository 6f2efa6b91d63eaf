"""How these tests speak to the simulated API server: in process, as a user, and over open streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from sandbox.kubernetes.app import ApiServer

Obj = dict[str, Any]
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
DEADLINE_S = 5.0


def a_config_map(name: str, **fields: Any) -> Obj:
    labels = fields.pop("labels", {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, **fields}


def a_deployment(name: str, *, image: str = "nginx:1", **spec: Any) -> Obj:
    containers = [{"name": "main", "image": image, "ports": [{"containerPort": 80}]}]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }


def client_of(app: ApiServer, *, token: str | None = None) -> httpx.AsyncClient:
    """A client of the app without a network; the administrator's unless another token is given."""
    headers = {"authorization": f"Bearer {token or app.cluster.tokens.admin}", "user-agent": "tests/1"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://sandbox", headers=headers)


class OpenStream:
    """A response that is still being sent."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[Obj] = asyncio.Queue()
        self.gone = asyncio.Event()
        self._lines: list[Obj] = []
        self.is_over = False

    async def started(self) -> int:
        """The status, once the headers are there."""
        message = await asyncio.wait_for(self.chunks.get(), DEADLINE_S)
        return int(message["status"])

    async def event(self) -> Obj | None:
        """The next watch event, or None at the end of the stream."""
        while not self._lines and not self.is_over:
            message = await asyncio.wait_for(self.chunks.get(), DEADLINE_S)
            self._lines += [json.loads(line) for line in message.get("body", b"").splitlines()]
            self.is_over = not message.get("more_body")
        return self._lines.pop(0) if self._lines else None

    async def seen(self, count: int) -> list[tuple[str, str]]:
        """The next events as (type, name)."""
        events = [await self.event() for _ in range(count)]
        return [(e["type"], e["object"]["metadata"].get("name", "")) for e in events if e is not None]


@asynccontextmanager
async def open_stream(app: ApiServer, url: str, *, headers: dict[str, str] | None = None) -> AsyncIterator[OpenStream]:
    """GET a URL and read its answer piece by piece; leaving the block is the client going away."""
    stream, parts = OpenStream(), urlsplit(url)
    sent = {"authorization": f"Bearer {app.cluster.tokens.admin}", **(headers or {})}
    scope = {
        "type": "http",
        "method": "GET",
        "path": parts.path,
        "query_string": parts.query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }

    async def receive() -> Obj:
        await stream.gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        stream.chunks.put_nowait(dict(message))

    task = asyncio.create_task(app(scope, receive, send))
    try:
        yield stream
    finally:
        stream.gone.set()
        await asyncio.wait_for(task, DEADLINE_S)
