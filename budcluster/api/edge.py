"""What one application keeps at hand for its requests: settings, database, clock, services by type."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from starlette.requests import HTTPConnection

from budcluster.api.models import Role
from budcluster.config import Settings
from budcluster.kit.clock import Clock, SystemClock
from budcluster.kit.database import Database

ServiceT = TypeVar("ServiceT")


@dataclass(frozen=True)
class Actor:
    """Who makes a request."""

    name: str
    """`token:<name>`, `app:<dapr app id>` or `anonymous`."""
    role: Role


@dataclass
class Edge:
    """Made by `bootstrap`, found by requests at `app.state.edge`."""

    settings: Settings
    database: Database
    request_digest: Callable[[bytes], bytes]
    """Keyed hash by which a repeated request is recognised."""
    clock: Clock = field(default_factory=SystemClock)
    _services: dict[type[Any], Any] = field(default_factory=dict)

    @classmethod
    def of(cls, request: HTTPConnection) -> "Edge":
        """The edge of the application that serves this request."""
        return cast("Edge", request.app.state.edge)

    def provide(self, kind: type[ServiceT], service: ServiceT) -> None:
        """Make a service available to routes as `provided(kind)`; `kind` may be a protocol."""
        self._services[kind] = service

    def service(self, kind: type[ServiceT]) -> ServiceT:
        """The service of this kind."""
        return cast(ServiceT, self._services[kind])


def actor_of(request: HTTPConnection) -> Actor:
    """Who makes this request; `api.authentication` has found out before any route runs."""
    return cast(Actor, request.state.actor)
