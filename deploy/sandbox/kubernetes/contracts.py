"""What the API server asks of the simulated kubelets."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command in a container wrote and the exit code it ended with."""

    stdout: bytes = b""
    stderr: bytes = b""
    code: int = 0


@dataclass(frozen=True, slots=True)
class ProxyResponse:
    """The answer of a pod that was reached through the API server."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""


class Kubelets(Protocol):
    """Every node's kubelet. Methods raise `sandbox.kubernetes.errors.ApiError` with the words of a real one."""

    def logs(
        self,
        pod: Obj,
        *,
        container: str | None,
        previous: bool,
        follow: bool,
        tail_lines: int | None,
        since_seconds: int | None,
        since_time: datetime | None,
        timestamps: bool,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """The container's log; with `follow` it goes on until the container ends. An async generator."""
        ...

    async def exec(self, pod: Obj, *, container: str | None, command: list[str]) -> ExecResult:
        """Run a command in a container."""
        ...

    async def proxy(
        self,
        namespace: str,
        service_or_pod: Obj,
        port: str,
        method: str,
        path: str,
        query: str,
        headers: dict[str, str],
        body: bytes,
    ) -> ProxyResponse:
        """Pass a request to the pod, or to a ready pod of the service. `port` is a number, a name, or empty."""
        ...

    def metrics_nodes(self) -> list[Obj]:
        """metrics.k8s.io NodeMetrics of all nodes."""
        ...

    def metrics_pods(self) -> list[Obj]:
        """metrics.k8s.io PodMetrics of all pods."""
        ...


class Simulation(Protocol):
    """Nodes, scheduler, controllers and kubelets that live on one store."""

    @property
    def kubelets(self) -> Kubelets:
        """Answers what the API server asks of kubelets."""
        ...

    def start(self) -> None:
        """Let time run; needs a running event loop."""
        ...

    async def stop(self) -> None:
        """End every simulated process."""
        ...

    def inject(self, name: str, **arguments: Any) -> None:
        """Make something go wrong in the simulated world. Raises BadRequest for what makes no sense."""
        ...
