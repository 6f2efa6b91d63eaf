"""One simulated cluster without its server: store, identities, roles, faults, and the simulation that lives in it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes.admission import PodAdmission
from sandbox.kubernetes.bootstrap import furnish
from sandbox.kubernetes.clock import Clock
from sandbox.kubernetes.contracts import ExecResult, Kubelets, ProxyResponse, Simulation
from sandbox.kubernetes.crds import follow_definitions
from sandbox.kubernetes.errors import BadRequest, ServiceUnavailable
from sandbox.kubernetes.faults import Faults
from sandbox.kubernetes.pod_security import PRIVILEGED
from sandbox.kubernetes.rbac import Rbac
from sandbox.kubernetes.store import Store
from sandbox.kubernetes.tokens import Tokens

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """How a cluster is made.

    `nodes` names node profiles (`simulation.profiles`), `clock_factor` is how many times faster than the wall clock the
    cluster's time runs, `history` how many writes of a kind a watch may go back, `pod_security` the level of the Pod
    Security Standards that namespaces without a label enforce.
    """

    nodes: str = ""
    version: str = "1.36.2"
    clock_factor: float = 1.0
    seed: int = 0
    history: int = 20_000
    pod_security: str = PRIVILEGED


class Cluster:
    """Made in one go, furnished, without nodes unless `simulate` brings some."""

    def __init__(
        self,
        options: Options | None = None,
        *,
        ca_pem: str = "",
        simulate: Callable[[Store], Simulation] | None = None,
    ) -> None:
        options = options or Options()
        self.version = options.version
        self.address = ""
        self.store = Store(clock=Clock(factor=options.clock_factor), history=options.history)
        self.tokens = Tokens(self.store, ca_pem=ca_pem)
        self.rbac = Rbac(self.store)
        self.admission = PodAdmission(self.store, default=options.pod_security)
        self.faults = Faults(seed=options.seed)
        follow_definitions(self.store)
        furnish(self.store, ca_pem=ca_pem)
        self.simulation = simulate(self.store) if simulate else None
        self.kubelets: Kubelets = self.simulation.kubelets if self.simulation else NoKubelets()


class NoKubelets:
    """The kubelets of a cluster without nodes: every question is answered with what is missing."""

    def logs(self, pod: Obj, **_: Any) -> AsyncIterator[bytes]:
        raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")

    async def exec(self, pod: Obj, *, container: str | None, command: list[str]) -> ExecResult:  # noqa: ARG002
        raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")

    async def proxy(
        self,
        namespace: str,  # noqa: ARG002
        service_or_pod: Obj,
        port: str,  # noqa: ARG002
        method: str,  # noqa: ARG002
        path: str,  # noqa: ARG002
        query: str,  # noqa: ARG002
        headers: dict[str, str],  # noqa: ARG002
        body: bytes,  # noqa: ARG002
    ) -> ProxyResponse:
        raise ServiceUnavailable(f'no endpoints available for service "{service_or_pod["metadata"]["name"]}"')

    def metrics_nodes(self) -> list[Obj]:
        return []

    def metrics_pods(self) -> list[Obj]:
        return []
