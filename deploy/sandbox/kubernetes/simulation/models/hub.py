"""A tiny model hub: the endpoints that a control plane asks before it deploys, with gated repositories."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from sandbox.kubernetes.simulation.models.catalogue import MODELS, Model

Obj = dict[str, Any]
Receive = Callable[[], Awaitable[Obj]]
Send = Callable[[Obj], Awaitable[None]]


class Hub:
    """An ASGI application. A bearer token that starts with `hf_` opens gated models, unless it is in `refused`."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = dict(MODELS)
        self.refused: set[str] = set()

    async def __call__(self, scope: Mapping[str, Any], _receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {key.decode().lower(): value.decode() for key, value in scope["headers"]}
        status, body, more = self.answer(scope["path"], headers.get("authorization", ""))
        head = [(b"content-type", b"application/json"), *((k.encode(), v.encode()) for k, v in more.items())]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def answer(self, path: str, authorization: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for a path. Unknown repositories look like private ones, as on the real hub."""
        name, wanted = _split(path)
        model = self.models.get(name)
        if model is None:
            return _problem(401, "RepoNotFound", "Invalid username or password.")
        if wanted == "info":
            return 200, orjson.dumps(_info(model)), {}
        if model.gated and not self.admits(authorization.removeprefix("Bearer ")):
            text = (
                f"Access to model {name} is restricted. You must have access to it and be authenticated to access it."
            )
            return _problem(401, "GatedRepo", text)
        if wanted != "config.json":
            return _problem(404, "EntryNotFound", "Entry not found")
        return 200, orjson.dumps(model.config()), {"etag": f'"{model.parameters}"'}

    def admits(self, token: str | None) -> bool:
        """Whether a token opens gated models."""
        return bool(token) and str(token).startswith("hf_") and token not in self.refused


def _split(path: str) -> tuple[str, str]:
    if path.startswith("/api/models/"):
        return path.removeprefix("/api/models/").split("/revision/")[0], "info"
    for word in ("/resolve/", "/raw/"):
        if word in path:
            name, _, rest = path.lstrip("/").partition(word)
            return name, rest.partition("/")[2]
    return path.strip("/"), ""


def _problem(status: int, code: str, text: str) -> tuple[int, bytes, dict[str, str]]:
    return status, orjson.dumps({"error": text}), {"x-error-code": code, "x-error-message": text}


def _info(model: Model) -> Obj:
    return {
        "id": model.name,
        "modelId": model.name,
        "sha": f"{model.parameters:040x}",
        "private": False,
        "gated": "manual" if model.gated else False,
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "config": {"architectures": [model.architecture], "model_type": model.kind},
        "safetensors": {"parameters": {"BF16": model.parameters * 1_000_000}, "total": model.parameters * 1_000_000},
        "siblings": [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}],
        "usedStorage": model.weight_bytes,
    }
