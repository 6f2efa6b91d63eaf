"""The house's one door to the model hub: what a model looks like, before anything is deployed.

Two small requests (Hugging Face hub API: `/{id}/resolve/{revision}/config.json` and `/api/models/{id}`). The hub is
advice: when it is away, slow, or does not know the model, the answer is "unknown", and deploying goes on with that.
"""

import asyncio
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx
import structlog

from budcluster.config import ModelHubSettings
from budcluster.deployment.fitting.model_facts import ModelFacts, UnusableConfig, read_config

log = structlog.get_logger(__name__)

_MAX_CONFIG: Final = 1024 * 1024
_MAX_INFO: Final = 4 * 1024 * 1024
_REMEMBERED: Final = 500
_KEEP_S: Final = 600.0
_KEEP_UNKNOWN_S: Final = 10.0


_Question = tuple[str, str, str]
"""Model, revision, and a digest of the token: what one account may see is not another's to see."""


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """What the hub says of a model. Without facts, `problem` is a sentence that says why."""

    facts: ModelFacts | None
    problem: str | None = None


class _Refused(Exception):
    """The hub did not give it; the message says why."""


class ModelHub:
    """Asks the hub. Never raises and never takes longer than `timeout_s`; answers are kept for ten minutes."""

    def __init__(self, settings: ModelHubSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._transport = transport
        self._answers: OrderedDict[_Question, tuple[float, asyncio.Task[HubAnswer]]] = OrderedDict()

    async def describe(self, model: str, *, revision: str | None, token: str | None) -> HubAnswer:
        """The model's shape. Requests for the same model at the same time ask once."""
        if not self._settings.enabled:
            return HubAnswer(None, "The model hub is switched off, so the model's config is not known.")
        if model.startswith("/") or "://" in model:
            return HubAnswer(None, "The model does not lie on the model hub, so its config is not known.")
        key = (model, revision or "main", hashlib.sha256(token.encode()).hexdigest() if token else "")
        now = asyncio.get_running_loop().time()
        known = self._answers.get(key)
        if known is None or known[0] < now:
            known = (now + _KEEP_S, asyncio.ensure_future(self._ask(model, revision or "main", token)))
            self._answers[key] = known
            if len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
        answer = await asyncio.shield(known[1])
        if answer.facts is None:
            self._answers[key] = (min(known[0], now + _KEEP_UNKNOWN_S), known[1])
        return answer

    async def _ask(self, model: str, revision: str, token: str | None) -> HubAnswer:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._read(model, revision, token)
        except _Refused as refusal:
            return HubAnswer(None, str(refusal))
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            log.info("model_hub.unreachable", error=type(error).__name__)
            return HubAnswer(None, f"The model hub {self._settings.url} could not be asked ({type(error).__name__}).")
        except UnusableConfig as error:
            return HubAnswer(None, f"Of the model's config: {error}.")
        except Exception as error:  # noqa: BLE001 - whatever a hub answers, deploying goes on without it
            log.warning("model_hub.unreadable", error=type(error).__name__)
            return HubAnswer(None, f"The model hub's answer about {model} cannot be read ({type(error).__name__}).")

    async def _read(self, model: str, revision: str, token: str | None) -> HubAnswer:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(
            base_url=self._settings.url,
            headers=headers,
            transport=self._transport,
            timeout=self._settings.timeout_s,
            follow_redirects=True,
            max_redirects=3,
        ) as http:
            path = f"/{quote(model, safe='/')}/resolve/{quote(revision, safe='')}/config.json"
            config, info = await asyncio.gather(
                self._json(http, path, model, _MAX_CONFIG),
                self._json(http, f"/api/models/{quote(model, safe='/')}", model, _MAX_INFO),
            )
        return HubAnswer(read_config(config, weights_bytes=_weights_bytes(info)))

    async def _json(self, http: httpx.AsyncClient, path: str, model: str, limit: int) -> dict[str, Any]:
        async with http.stream("GET", path) as answer:
            if answer.status_code != 200:
                raise _Refused(_sentence(model, answer))
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > limit:
                    raise _Refused(f"The model hub's answer about {model} is too large to be a config.")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise _Refused(f"The model hub's answer about {model} is not a JSON object.")
        return content


def _sentence(model: str, answer: httpx.Response) -> str:
    # The hub names the fact in a header; unknown and private repositories look alike (401 RepoNotFound).
    code = answer.headers.get("x-error-code", "")
    if code == "GatedRepo":
        return f"The model {model} is gated: name a Hugging Face credential whose account accepted its terms."
    if code in {"RepoNotFound", "RevisionNotFound", "EntryNotFound"}:
        return f"The model hub has no such model, revision or config ({model}), or it is private ({code})."
    return f"The model hub answered {answer.status_code} about {model}."


_WIDTHS: Final[dict[str, float]] = {
    "F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1,
    "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of a safetensors number."""


def _weights_bytes(info: dict[str, Any]) -> int | None:
    """From the counts of numbers by type that the hub reads out of the safetensors files."""
    tensors = info.get("safetensors")
    counts = tensors.get("parameters") if isinstance(tensors, dict) else None
    if not isinstance(counts, dict) or not counts:
        return None
    usable = {kind: count for kind, count in counts.items() if isinstance(count, int) and 0 < count < 10**15}
    return int(sum(count * _WIDTHS.get(kind, 2) for kind, count in usable.items())) or None
