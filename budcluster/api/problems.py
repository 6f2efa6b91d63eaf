"""Every error as RFC 9457 `application/problem+json`, and what a route declares about the errors it can give.

Nothing that a caller sent is repeated: bodies here carry credentials. An unknown error shows a title and the request
id; the rest is in the log under that id.
"""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from budcluster.api.context import request_id
from budcluster.api.validation import from_validation
from budcluster.kit.database import is_outage, outage_of
from budcluster.kit.errors import DomainError, StaleVersion

log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"


class FieldProblem(BaseModel):
    """One value that is not acceptable."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    in_: str = Field(alias="in", examples=["body"])
    """`body`, `query`, `path` or `header`."""
    pointer: str = Field(examples=["/name"])
    """JSON pointer (RFC 6901) to the value."""
    code: str = Field(examples=["string_too_long"])
    detail: str = Field(examples=["String should have at most 63 characters"])


class Problem(BaseModel):
    """What went wrong, for a person and for a program (RFC 9457). Kinds add named facts of their own."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["/problems/cluster-name-taken"])
    """Stable name of the kind of problem, and a page that explains it; `about:blank` where the status says it all."""
    title: str
    status: int
    detail: str | None = None
    """This occurrence, and what to do next."""
    instance: str | None = None
    request_id: str | None = None
    """Find the request in the service's log by this id."""
    errors: list[FieldProblem] | None = None


def problem_type(kind: type[DomainError]) -> str:
    """The stable `type` of a kind of problem."""
    return f"/problems/{kind.slug()}"


def render(error: DomainError, scope: Scope) -> Response:
    """The answer for an error of the domain."""
    facts = {
        "type": problem_type(type(error)),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": _instance(scope),
        "request_id": request_id(),
    }
    return _answer(error.status, {**error.extensions, **facts}, error.headers)


def render_unknown(scope: Scope) -> Response:
    """The answer for an error that nobody foresaw: a title and an id, nothing of the cause."""
    return _answer(500, _plain(500, scope))


def render_status(status: int, scope: Scope, headers: Mapping[str, str] | None = None) -> Response:
    """The answer where the HTTP status says everything: no such route, no such method."""
    return _answer(status, _plain(status, scope), headers)


def _plain(status: int, scope: Scope) -> dict[str, Any]:
    facts = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return {**facts, "instance": _instance(scope), "request_id": request_id()}


def _answer(status: int, facts: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(facts, default=str, separators=(",", ":")).encode()
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def _instance(scope: Scope) -> str:
    raw = scope.get("raw_path") or b""
    path = raw.decode("ascii", errors="replace").partition("?")[0]
    return re.sub(r"[^!-~]", "?", path)[:256] or "/"


def install(app: FastAPI) -> None:
    """Make every error that reaches the application a problem."""

    async def domain(request: Request, error: Exception) -> Response:
        assert isinstance(error, DomainError)
        if error.status >= 500:
            log.warning("request.refused", problem=error.slug(), detail=error.detail)
        return render(error, request.scope)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return render(from_validation(error.errors()), request.scope)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return render_status(error.status_code, request.scope, error.headers)

    async def stale(request: Request, error: Exception) -> Response:
        log.info("request.lost_race", error=type(error).__name__)
        return render(StaleVersion("Somebody changed the resource meanwhile; read it again and repeat."), request.scope)

    app.add_exception_handler(DomainError, domain)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(StaleDataError, stale)


def from_unforeseen(error: Exception) -> DomainError | None:
    """The problem behind an error that no handler took, if it is a known one: the database went away in mid-request."""
    return outage_of(error) if is_outage(error) else None


def problems(*kinds: type[DomainError]) -> dict[int | str, dict[str, Any]]:
    """What a route declares as `responses=`: the kinds of problems it can answer with, each with an example.

    Those that any route can give (authentication, validation, outages) are added to all of them by `api.openapi`.
    """
    declared: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        entry = declared.setdefault(kind.status, _declaration(HTTPStatus(kind.status).phrase))
        entry["content"][MEDIA_TYPE]["examples"][kind.slug()] = {
            "summary": kind.title,
            "value": {"type": problem_type(kind), "title": kind.title, "status": kind.status, "detail": kind.__doc__},
        }
    return declared


def _declaration(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema, "examples": {}}}}
