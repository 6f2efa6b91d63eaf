"""Whether this process lives, whether it can serve, and its metrics for Prometheus."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from budcluster.api.authentication import is_public
from budcluster.api.errors import ServiceStarting
from budcluster.api.problems import render
from budcluster.api.schemas import Answer
from budcluster.kit.errors import DomainError

Check = Callable[[], Awaitable[str | None]]
"""None when all is well, else a sentence: what is wrong and what to do. Must be quick."""

_CHECK_TIMEOUT_S = 6.0


@dataclass
class Readiness:
    """What must hold before requests are served, as named checks."""

    checks: dict[str, Check] = field(default_factory=dict)
    notes: dict[str, Check] = field(default_factory=dict)
    """Named checks whose sentences are shown but keep no request from being served."""
    waiting_for: str = "The database is awaited; requests are served once it is up and migrated."
    """Why the service has not started yet."""
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def problems(self) -> dict[str, str]:
        """What is wrong now, by check; empty when requests can be served."""
        wrong = await self._ask_all(self.checks)
        return wrong if self.started.is_set() else {"start": self.waiting_for, **wrong}

    async def remarks(self) -> dict[str, str]:
        """What somebody should look at although requests can be served, by check. Empty before the start."""
        return await self._ask_all(self.notes) if self.started.is_set() else {}

    async def _ask_all(self, checks: dict[str, Check]) -> dict[str, str]:
        found = await asyncio.gather(*(self._ask(check) for check in checks.values()))
        return {name: sentence for name, sentence in zip(checks, found, strict=True) if sentence is not None}

    async def _ask(self, check: Check) -> str | None:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                return await check()
        except DomainError as error:
            return error.detail
        except TimeoutError:
            return f"No answer within {_CHECK_TIMEOUT_S:.0f} s."


class StartGate:
    """Middleware: answers 503 until the database is migrated. Health and documentation are served at once."""

    def __init__(self, app: ASGIApp, *, readiness: Readiness) -> None:
        self._app = app
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._readiness.started.is_set() or is_public(scope["path"]):
            await self._app(scope, receive, send)
            return
        await render(ServiceStarting(self._readiness.waiting_for), scope)(scope, receive, send)


class Metrics:
    """The process's own metrics. Labels are route templates, so their number is bounded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "budcluster_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "budcluster_http_request_seconds",
            "Seconds from the first byte of a request to the last of its answer.",
            ["method", "route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.registry,
        )
        self.ready = Gauge("budcluster_ready", "1 when requests can be served.", registry=self.registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        known = method if method in _METHODS else "OTHER"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Liveness(Answer):
    """The process answers."""

    status: str = Field("alive", examples=["alive"])


class ReadinessReport(Answer):
    """Whether requests can be served, and what is wrong if not."""

    status: str = Field(examples=["ready"])
    problems: dict[str, str] = Field(
        default_factory=dict, description="By check: what is wrong and what to do.", examples=[{}]
    )
    notes: dict[str, str] = Field(
        default_factory=dict, description="What somebody should look at although requests are served.", examples=[{}]
    )


def router(readiness: Readiness, metrics: Metrics) -> APIRouter:
    """The health routes."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz", operation_id="check_liveness", summary="Does the process live? Asks nothing of others.")
    async def healthz() -> Liveness:
        return Liveness()

    @routes.get(
        "/readyz",
        operation_id="check_readiness",
        summary="Can requests be served? Names what is wrong if not.",
        responses={503: {"model": ReadinessReport, "description": "Requests cannot be served just now"}},
    )
    async def readyz(response: Response) -> ReadinessReport:
        wrong = await readiness.problems()
        metrics.ready.set(0 if wrong else 1)
        response.status_code = 503 if wrong else 200
        status = "not ready" if wrong else "ready"
        return ReadinessReport(status=status, problems=wrong, notes=await readiness.remarks())

    @routes.get(
        "/metrics",
        operation_id="read_metrics",
        summary="Metrics in Prometheus' text format.",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics"}},
    )
    async def read_metrics(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes
