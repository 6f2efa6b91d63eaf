"""The OpenAPI document: what FastAPI writes, completed with what holds for every route."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from budcluster.api.authentication import is_public
from budcluster.api.errors import (
    BodyTooLarge,
    HeadTooLarge,
    IdempotencyKeyReused,
    InvalidToken,
    MalformedRequest,
    MissingCredential,
    RequestInProgress,
    RoleTooWeak,
    ServiceStarting,
    UnsupportedMediaType,
)
from budcluster.api.problems import MEDIA_TYPE, Problem, problems
from budcluster.kit.database import DatabaseUnavailable
from budcluster.kit.errors import DomainError, Invalid

_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})
_REPLACED: Final = ("HTTPValidationError", "ValidationError")
_SECURITY: Final[list[dict[str, list[str]]]] = [{}, {"bearer": []}, {"dapr": []}]

DESCRIPTION: Final = """Control plane for GPU Kubernetes clusters and the model runtimes on them.

Errors are `application/problem+json` (RFC 9457); each `type` is a page that explains it. Lists return
`{"items": […], "next_cursor": …}`. A creating POST takes an `Idempotency-Key`: repeated with the same key and body
within a day, it gets the same answer. Changes take `If-Match` with the resource's `ETag`.
"""


def document(app: FastAPI) -> dict[str, Any]:
    """The complete document of an application; made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, summary=app.summary
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for name in _REPLACED:
            schemas.pop(name, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs", {}))
        schemas["Problem"] = problem
        made["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "`budcluster tokens create` makes one."},
            "dapr": {"type": "apiKey", "in": "header", "name": "dapr-api-token", "description": "APP_API_TOKEN."},
        }
        for path, item in made["paths"].items():
            for method in _METHODS & item.keys():
                _complete(path, method, item[method])
        app.openapi_schema = made
    return app.openapi_schema


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    validation = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if validation.get("$ref", "").endswith("/HTTPValidationError"):
        del responses["422"]
    for status, declared in problems(*_common(path, method, operation)).items():
        known = responses.setdefault(str(status), declared)
        if known is not declared and MEDIA_TYPE in known.get("content", {}):
            known["content"][MEDIA_TYPE]["examples"].update(declared["content"][MEDIA_TYPE]["examples"])
    responses.setdefault("500", _unforeseen())
    if is_public(path):
        return
    operation["security"] = _SECURITY
    if method == "post":
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)


def _common(path: str, method: str, operation: dict[str, Any]) -> list[type[DomainError]]:
    kinds: list[type[DomainError]] = [MalformedRequest, BodyTooLarge, HeadTooLarge, Invalid]
    if is_public(path):
        return kinds
    kinds += [MissingCredential, InvalidToken, DatabaseUnavailable, ServiceStarting]
    if method != "get":
        kinds.append(RoleTooWeak)
    if method == "post":
        kinds += [IdempotencyKeyReused, RequestInProgress]
    if "requestBody" in operation:
        kinds.append(UnsupportedMediaType)
    return kinds


def _unforeseen() -> dict[str, Any]:
    value = {"type": "about:blank", "title": "Internal Server Error", "status": 500, "request_id": "7f3a…"}
    example = {"summary": "Something nobody foresaw; the log has it under request_id", "value": value}
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {"internal": example}}
    return {"description": "Internal Server Error", "content": {MEDIA_TYPE: content}}


_IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text of your own, a UUID for example. Repeating the request with it repeats the answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "example": "5f3a1c0e-6a54-4a53-9a6b-4a6f6f9c2d11",
}
