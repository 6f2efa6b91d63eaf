"""Refusals of the API server, in the words of kube-apiserver 1.36 (apimachinery pkg/api/errors)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cause:
    """One rejected field: `reason` is a FieldValue… constant, `field` a path such as `spec.replicas`."""

    reason: str
    message: str
    field: str

    @property
    def sentence(self) -> str:
        """As it stands in the message of the whole error."""
        return f"{self.field}: {self.message}"


def qualified(plural: str, group: str) -> str:
    """`deployments.apps`, or the bare plural in the core group."""
    return f"{plural}.{group}" if group else plural


class ApiError(Exception):
    """A request is refused; `status()` is the metav1.Status that the client gets."""

    code = 500
    reason = "InternalError"

    def __init__(self, message: str, *, details: Obj | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})
        self.retry_after = retry_after
        if retry_after is not None:
            self.details["retryAfterSeconds"] = retry_after

    def status(self) -> Obj:
        """The metav1.Status."""
        body: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            body["details"] = self.details
        return body


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"

    def __init__(self) -> None:
        super().__init__("Unauthorized")


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"

    def __init__(self, plural: str, group: str, name: str, why: str) -> None:
        subject = f'{qualified(plural, group)} "{name}"' if name else qualified(plural, group)
        super().__init__(f"{subject} is forbidden: {why}", details=_details(name, group, plural))


class NotFound(ApiError):
    code, reason = 404, "NotFound"

    def __init__(self, plural: str, group: str, name: str) -> None:
        super().__init__(f'{qualified(plural, group)} "{name}" not found', details=_details(name, group, plural))


class UnknownPath(ApiError):
    code, reason = 404, "NotFound"

    def __init__(self) -> None:
        super().__init__("the server could not find the requested resource")


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"

    def __init__(self) -> None:
        super().__init__("the server does not allow this method on the requested resource")


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"

    def __init__(self, plural: str, group: str, name: str) -> None:
        super().__init__(f'{qualified(plural, group)} "{name}" already exists', details=_details(name, group, plural))


class Conflict(ApiError):
    """A stale resourceVersion or a uid that is not the stored one."""

    code, reason = 409, "Conflict"

    def __init__(self, plural: str, group: str, name: str, why: str = "") -> None:
        why = why or ("the object has been modified; please apply your changes to the latest version and try again")
        message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
        super().__init__(message, details=_details(name, group, plural))


class ApplyConflict(ApiError):
    """Server-side apply meets fields that another manager owns."""

    code, reason = 409, "Conflict"


class Expired(ApiError):
    """The resourceVersion or continue token is older than the kept history."""

    code, reason = 410, "Expired"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    code, reason = 422, "Invalid"

    def __init__(self, kind: str, group: str, name: str, causes: Sequence[Cause]) -> None:
        sentences = [cause.sentence for cause in causes]
        said = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
        details = _details(name, group, kind)
        details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
        super().__init__(f'{qualified(kind, group)} "{name}" is invalid: {said}', details=details)


class TooManyRequests(ApiError):
    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    code, reason = 500, "InternalError"


class ServiceUnavailable(ApiError):
    code, reason = 503, "ServiceUnavailable"


def _details(name: str, group: str, kind: str) -> Obj:
    pairs = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in pairs.items() if value}
