"""Which engine runs the workflows: the embedded sidecar, or a Dapr sidecar beside us. Only the address differs."""

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from budcluster.durable.sidecar.limits import Limits
    from budcluster.durable.sidecar.server import EmbeddedSidecar


class BackendKind(StrEnum):
    """`WORKFLOW_BACKEND`."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    DAPR = "dapr"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the workflow protocol is served."""

    endpoint: str
    token: str | None = field(default=None, repr=False)


class Backend(Protocol):
    """An engine. The methods block, so they are called from threads other than the event loop's."""

    def start(self) -> Address:
        """Make it reachable; returns where. Does nothing the second time."""

    def drain(self) -> None:
        """Stop taking new work. Returns at once."""

    def stop(self, *, grace_s: float) -> None:
        """End it; what runs has `grace_s` seconds."""

    def snapshot(self) -> dict[str, int]:
        """Numbers for metrics; empty where the engine has its own."""


@dataclass(frozen=True, slots=True)
class DaprBackend:
    """A sidecar that somebody else starts and stops."""

    address: Address

    def start(self) -> Address:
        return self.address

    def drain(self) -> None:
        return None

    def stop(self, *, grace_s: float) -> None:  # noqa: ARG002 - nothing of ours runs there
        return None

    def snapshot(self) -> dict[str, int]:
        return {}


class EmbeddedBackend:
    """The embedded sidecar, in this process."""

    def __init__(self, dsn: str, *, limits: "Limits | None" = None, address: str = "127.0.0.1:0") -> None:
        """`dsn`: the database for asyncpg; `address`: `127.0.0.1:PORT` (0: any free one) or `unix:/path`."""
        self._dsn = dsn
        self._limits = limits
        self._listen = address
        self._sidecar: EmbeddedSidecar | None = None
        self._address: Address | None = None
        self._starting = threading.Lock()

    def start(self) -> Address:
        """Raises SidecarNotStarted when it cannot listen. PostgreSQL may still be away."""
        from budcluster.durable.sidecar.server import EmbeddedSidecar  # noqa: PLC0415 - imports grpc, only if used

        with self._starting:
            if self._address is None:
                token = secrets.token_urlsafe(32)
                sidecar = EmbeddedSidecar(self._dsn, token=token, address=self._listen, limits=self._limits)
                sidecar.start()
                self._sidecar, self._address = sidecar, Address(sidecar.endpoint, token)
            return self._address

    def drain(self) -> None:
        if self._sidecar is not None:
            self._sidecar.drain()

    def stop(self, *, grace_s: float) -> None:
        if self._sidecar is not None:
            self._sidecar.stop(grace_s=grace_s)

    def snapshot(self) -> dict[str, int]:
        return {} if self._sidecar is None else self._sidecar.snapshot()


def choose_backend(
    kind: BackendKind,
    environment: Mapping[str, str],
    *,
    dsn: str,
    limits: "Limits | None" = None,
) -> Backend:
    """The engine that `kind` and the SDK's own variables name.

    AUTO is Dapr where DAPR_GRPC_ENDPOINT or DAPR_GRPC_PORT is set; DAPR_HTTP_ENDPOINT alone says nothing about
    workflows. The token for Dapr is DAPR_API_TOKEN.
    """
    endpoint, port = environment.get("DAPR_GRPC_ENDPOINT"), environment.get("DAPR_GRPC_PORT")
    if kind is BackendKind.EMBEDDED or (kind is BackendKind.AUTO and not endpoint and not port):
        return EmbeddedBackend(dsn, limits=limits)
    host = environment.get("DAPR_RUNTIME_HOST") or "127.0.0.1"
    return DaprBackend(Address(endpoint or f"{host}:{port or 50001}", environment.get("DAPR_API_TOKEN") or None))
