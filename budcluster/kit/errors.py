"""The one tree of errors that callers may see.

    DomainError
    ├── NotFound 404
    ├── Conflict 409
    │   └── StaleVersion 412
    ├── Invalid 422
    ├── Unauthenticated 401, Forbidden 403
    └── UpstreamFailed 502, UpstreamUnavailable 503

Facts subclass one of these in their feature's `errors.py`. Gateways have errors of their own and know no HTTP;
services translate where the meaning is known. A class's
docstring is the page that `/problems/<slug>` serves.
"""

import re
from typing import Any, ClassVar


class DomainError(Exception):
    """Something the caller should know about and can act on."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    headers: dict[str, str]

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **extensions: Any) -> None:
        """`detail` is a sentence for a person that says what to do next; `extensions` are named facts for programs."""
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.extensions = extensions

    @classmethod
    def slug(cls) -> str:
        """The stable last part of the problem's type: the class name in kebab case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()


class NotFound(DomainError):
    """There is nothing under this id. It never existed, or it was deleted; list the collection to see what is there."""

    status = 404
    title = "Not found"


class Conflict(DomainError):
    """The request is well formed but does not fit the present state. The detail says which state, and what to do."""

    status = 409
    title = "Conflict with the present state"


class StaleVersion(Conflict):
    """`If-Match` named another version than the present one. Read the resource again and repeat the change on it."""

    status = 412
    title = "The resource has changed since it was read"


class Invalid(DomainError):
    """A value is not acceptable. `errors` lists each one with a JSON pointer to its place and the reason."""

    status = 422
    title = "Request is not valid"


class Unauthenticated(DomainError):
    """No valid credential came with the request. Send `Authorization: Bearer …`; `budcluster tokens` makes one."""

    status = 401
    title = "Authentication is required"


class Forbidden(DomainError):
    """The credential is valid but its role does not allow this. A token with the role `manage` can change things."""

    status = 403
    title = "Not allowed"


class UpstreamFailed(DomainError):
    """A system behind this service answered with a failure. The detail names it and what it said."""

    status = 502
    title = "A system behind this service failed"


class UpstreamUnavailable(DomainError):
    """A system behind this service cannot be reached just now. Try again after the seconds in `Retry-After`."""

    status = 503
    title = "A system behind this service is not available"
