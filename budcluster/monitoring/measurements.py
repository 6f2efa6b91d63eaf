"""What a cluster measures of itself: Prometheus behind the API server's proxy, or the metrics API."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol

import orjson

from budcluster.hardware import prometheus
from budcluster.kube.errors import KubeError
from budcluster.kube.quantities import InvalidQuantity
from budcluster.kube.quantities import parse as parse_quantity

_METRICS: Final = "/apis/metrics.k8s.io/v1beta1/nodes"
_BUSY: Final = 'node_cpu_seconds_total{job="node-exporter",mode!~"idle|iowait|steal"}'
_NODES: Final = '{job="node-exporter"}'
QUERIES: Final[Mapping[str, str]] = {
    "cpu_cores": f"sum(rate({_BUSY}[5m]))",
    "memory_bytes": f"sum(node_memory_MemTotal_bytes{_NODES}) - sum(node_memory_MemAvailable_bytes{_NODES})",
    "gpus": "sum(DCGM_FI_DEV_GPU_UTIL) / 100",
    "gpu_memory_mib": "sum(DCGM_FI_DEV_FB_USED)",
}
"""PromQL for kube-prometheus-stack 88 (jobs named as its recording rules expect) and the DCGM exporter 4 (MiB)."""


class NotMeasured(Exception):
    """A source cannot tell; the sentence says why."""


class Client(Protocol):
    """The part of `ClusterClient` that is needed here."""

    async def read(self, path: str) -> dict[str, Any]: ...

    async def ask_service(
        self, namespace: str, service: str, path: str, *, port: str | int, params: Mapping[str, str] | None = None
    ) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """What is used just now. None where the source does not know."""

    cpu_cores: float | None = None
    memory_bytes: float | None = None
    gpus: float | None = None
    """Sum of utilisations: 1.0 is one device fully busy."""
    gpu_memory_mib: float | None = None


async def from_prometheus(client: Client) -> Measured:
    """Raises NotMeasured."""

    async def ask(query: str) -> float | None:
        answer = await client.ask_service(
            prometheus.NAMESPACE,
            prometheus.SERVICE,
            "api/v1/query",
            port=prometheus.PORT,
            params={"query": query},
        )
        return read_value(answer)

    try:
        values = await asyncio.gather(*(ask(query) for query in QUERIES.values()))
    except KubeError as error:
        raise NotMeasured(f"Prometheus could not be asked: {error}") from error
    measured = Measured(**dict(zip(QUERIES, values, strict=True)))
    if measured.cpu_cores is None or measured.memory_bytes is None:
        raise NotMeasured("Prometheus does not measure the nodes yet.")
    return measured


async def from_metrics_server(client: Client) -> Measured:
    """Raises NotMeasured. Knows nothing of GPUs."""
    try:
        answer = await client.read(_METRICS)
        usages = [item["usage"] for item in answer["items"]]
        cpu = sum((parse_quantity(usage["cpu"]) for usage in usages), Decimal(0))
        memory = sum((parse_quantity(usage["memory"]) for usage in usages), Decimal(0))
    except KubeError as error:
        raise NotMeasured(f"The metrics API could not be asked: {error}") from error
    except (KeyError, TypeError, InvalidQuantity) as error:
        raise NotMeasured("The metrics API gave an answer that makes no sense.") from error
    if not usages:
        raise NotMeasured("The metrics API knows no node yet.")
    return Measured(cpu_cores=float(cpu), memory_bytes=float(memory))


def read_value(body: bytes) -> float | None:
    """The one number of an instant query (Prometheus HTTP API v1); None where it has none. Raises NotMeasured."""
    try:
        answer = orjson.loads(body)
        if answer["status"] != "success":
            raise NotMeasured("Prometheus refused the query.")
        result = answer["data"]["result"]
        value = float(result[0]["value"][1]) if result else math.nan
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise NotMeasured("The answer in Prometheus' place is not Prometheus'.") from error
    return value if math.isfinite(value) else None
