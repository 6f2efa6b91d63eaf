"""Misfortune on demand: slow answers, dropped connections, refusals, conflicts, throttling, errors at a rate."""

import asyncio
import random
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, Literal

from sandbox.kubernetes.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    InternalError,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
)
from sandbox.kubernetes.rbac import Attributes, refusal
from sandbox.kubernetes.tokens import User

Obj = dict[str, Any]
FaultKind = Literal["latency", "drop", "unauthorized", "forbidden", "conflict", "throttle", "error", "unavailable"]
KINDS: tuple[FaultKind, ...] = (
    "latency",
    "drop",
    "unauthorized",
    "forbidden",
    "conflict",
    "throttle",
    "error",
    "unavailable",
)
_WRITES = frozenset({"update", "patch"})


class ConnectionDropped(Exception):
    """The connection ends without an answer."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong, for which requests, how often.

    `verbs` and `resources` (plural, or `plural/subresource`) are empty for all. `rate` is the share of matching
    requests that suffer, from 0 to 1; `times` how many may suffer in all. `seconds` is the real time of a latency,
    `retry_after` the seconds a throttled client is told to wait, `user` the name of the only user that suffers.
    """

    kind: FaultKind
    verbs: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    rate: float = 1.0
    times: int | None = None
    seconds: float = 0.0
    retry_after: int = 1
    user: str = ""

    def matches(self, wanted: Attributes, user: User) -> bool:
        """Whether this request may suffer."""
        if self.verbs and wanted.verb not in self.verbs:
            return False
        if self.resources and wanted.full_resource not in self.resources:
            return False
        if self.kind == "conflict" and wanted.verb not in _WRITES:
            return False
        return not self.user or self.user == user.name


@dataclass
class _Active:
    fault: Fault
    suffered: int = field(default=0)

    @property
    def is_spent(self) -> bool:
        return self.fault.times is not None and self.suffered >= self.fault.times


class Faults:
    """The faults in force. The same seed and the same requests give the same misfortune."""

    def __init__(self, *, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._active: dict[int, _Active] = {}
        self._numbers = count(1)

    def add(self, fault: Fault) -> int:
        """Put a fault in force; returns its number."""
        number = next(self._numbers)
        self._active[number] = _Active(fault)
        return number

    def remove(self, number: int) -> bool:
        """End a fault; whether there was one of this number."""
        return self._active.pop(number, None) is not None

    def clear(self) -> None:
        """End all of them."""
        self._active.clear()

    def listed(self) -> list[Obj]:
        """The faults in force, with how many requests have suffered each."""
        return [{"id": n, "suffered": a.suffered, **asdict(a.fault)} for n, a in self._active.items()]

    async def strike(self, wanted: Attributes, user: User) -> None:
        """Let the faults befall a request: waits, or raises ApiError or ConnectionDropped."""
        for active in list(self._active.values()):
            fault = active.fault
            if active.is_spent or not fault.matches(wanted, user):
                continue
            if fault.rate < 1 and self._random.random() >= fault.rate:
                continue
            active.suffered += 1
            if fault.kind == "latency":
                await asyncio.sleep(fault.seconds)
            elif fault.kind == "drop":
                raise ConnectionDropped
            else:
                raise _error(fault, wanted, user)


def fault_from(document: Obj) -> Fault:
    """Read a fault from JSON. Raises BadRequest with the field that is wrong."""
    known = set(Fault.__dataclass_fields__)
    if unknown := sorted(set(document) - known):
        raise BadRequest(f"unknown fields of a fault: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    if document.get("kind") not in KINDS:
        raise BadRequest(f"kind must be one of {', '.join(KINDS)}")
    lists = {name: tuple(document.get(name) or ()) for name in ("verbs", "resources")}
    try:
        fault = Fault(**{**document, **lists})
        if not 0 <= fault.rate <= 1 or fault.seconds < 0:
            raise BadRequest("rate lies between 0 and 1, seconds is not negative")
    except TypeError as error:
        raise BadRequest(f"the fault cannot be read: {error}") from error
    return fault


def _error(fault: Fault, wanted: Attributes, user: User) -> ApiError:
    if fault.kind == "unauthorized":
        return Unauthorized()
    if fault.kind == "forbidden":
        return Forbidden(wanted.resource, wanted.group, wanted.name, refusal(user, wanted))
    if fault.kind == "conflict":
        return Conflict(wanted.resource, wanted.group, wanted.name)
    if fault.kind == "throttle":
        said = "the server has received too many requests and has asked us to try again later"
        return TooManyRequests(said, retry_after=fault.retry_after)
    if fault.kind == "unavailable":
        return ServiceUnavailable("the server is currently unable to handle the request")
    return InternalError("Internal error occurred: etcdserver: request timed out")
