"""Facts of the HTTP edge that callers see as problems."""

from typing import Any

from budcluster.kit.errors import Conflict, DomainError, Forbidden, Invalid, Unauthenticated, UpstreamUnavailable


class MalformedRequest(DomainError):
    """The request could not be read: its body is not JSON, or a header is not well formed. Correct and resend it."""

    status = 400
    title = "Request cannot be read"


class BodyTooLarge(DomainError):
    """The body is larger than this service reads; `max_bytes` is the limit (setting `API__MAX_BODY_BYTES`)."""

    status = 413
    title = "Request body is too large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"The body is larger than {max_bytes} bytes, the most that is read here; send less.", max_bytes=max_bytes
        )


class HeadTooLarge(DomainError):
    """The request line and headers together are larger than this service reads. Send fewer or shorter headers."""

    status = 431
    title = "Request head is too large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"The request line and headers hold more than {max_bytes} bytes; send fewer or shorter ones.",
            max_bytes=max_bytes,
        )


class UnsupportedMediaType(DomainError):
    """The body is not declared as JSON. Send the header `Content-Type: application/json`."""

    status = 415
    title = "Media type is not supported"

    def __init__(self) -> None:
        super().__init__("This route reads JSON only; send the header Content-Type: application/json.")


class InvalidCursor(Invalid):
    """The cursor is damaged, or belongs to a list with other filters or another sort. Start again without `cursor`."""

    title = "Cursor does not belong to this list"

    def __init__(self) -> None:
        super().__init__(
            "This cursor was not given out for a list with these filters and this sort; start again without it.",
            errors=[{"in": "query", "pointer": "/cursor", "code": "cursor", "detail": "does not belong to this list"}],
        )


class IdempotencyKeyReused(Conflict):
    """The `Idempotency-Key` was used for another request within the last day. Use a new key for a new request."""

    title = "Idempotency key belongs to another request"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used with another path or body; use a new key for a new request.")


class RequestInProgress(Conflict):
    """A request with the same `Idempotency-Key` is still at work. Repeat it after the seconds in `Retry-After`."""

    title = "The same request is still in progress"

    def __init__(self) -> None:
        super().__init__(
            "A request with the same Idempotency-Key is still at work; repeat it in a moment to get its answer.",
            headers={"Retry-After": "2"},
        )


class MissingCredential(Unauthenticated):
    """A token is needed and the request carried none. `budcluster tokens create` makes one."""

    title = "A token is needed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class InvalidToken(Unauthenticated):
    """The token is unknown, expired or revoked. `budcluster tokens list` shows what exists."""

    title = "The token is not valid"

    def __init__(self) -> None:
        super().__init__(
            "The token is unknown, expired or revoked; `budcluster tokens create` makes a new one.",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )


class RoleTooWeak(Forbidden):
    """The token may look but not change anything. Use one with the role `manage`."""

    title = "The token's role allows reading only"

    def __init__(self) -> None:
        super().__init__("This token has the role view, which only reads; use a token with the role manage.")


class ServiceStarting(UpstreamUnavailable):
    """The service has started but its database is not ready yet. `/readyz` tells why; try again after `Retry-After`."""

    title = "The service is still starting"

    def __init__(self, reason: str) -> None:
        super().__init__(reason, headers={"Retry-After": "5"})


def every_kind(root: type[DomainError] = DomainError) -> list[type[DomainError]]:
    """All classes of problems that the running service can answer with, by slug."""
    found: dict[str, type[DomainError]] = {}
    waiting: list[type[Any]] = root.__subclasses__()
    while waiting:
        kind = waiting.pop()
        found[kind.slug()] = kind
        waiting += kind.__subclasses__()
    return [found[slug] for slug in sorted(found)]
