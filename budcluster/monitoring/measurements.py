"""What a cluster measures of itself: Prometheus behind the API server's proxy, or the metrics API."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol

import orjson

from budcluster.kube.errors import KubeError
from budcluster.kube.quantities import InvalidQuantity
from budcluster.kube.quantities import parse as parse_quantity
from budcluster.monitoring import devices
from budcluster.monitoring.devices import MeasuredGpu, Sample
from budcluster.monitoring.prometheus_places import Place

_METRICS: Final = "/apis/metrics.k8s.io/v1beta1/nodes"
_BUSY: Final = 'node_cpu_seconds_total{mode!~"idle|iowait|steal"}'
_TOTAL, _FREE = (f"sum(max by (instance) (node_memory_{part}_bytes))" for part in ("MemTotal", "MemAvailable"))
# Without the job's name, which differs from chart to chart; an exporter that two jobs scrape must not count twice.
QUERIES: Final[Mapping[str, str]] = {
    "cpu_cores": f"sum(max by (instance, cpu, mode) (rate({_BUSY}[5m])))",
    "memory_bytes": f"{_TOTAL} - {_FREE}",
    "gpus": "sum(max by (UUID) (DCGM_FI_DEV_GPU_UTIL)) / 100",
    "gpu_memory_mib": "sum(max by (UUID, GPU_I_ID) (DCGM_FI_DEV_FB_USED))",
}
"""PromQL for any Prometheus that scrapes node-exporter, and the DCGM exporter 4 (MiB)."""


class NotMeasured(Exception):
    """A source cannot tell; the sentence says why."""


class Client(Protocol):
    """The part of `ClusterClient` that is needed here."""

    async def read(self, path: str) -> dict[str, Any]:
        """GET a path."""

    async def ask_service(
        self, namespace: str, service: str, path: str, *, port: str | int, params: Mapping[str, str] | None = None
    ) -> bytes:
        """GET a path of a service, through the API server's proxy."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is used just now. None where the source does not know."""

    cpu_cores: float | None = None
    memory_bytes: float | None = None
    gpus: float | None = None
    """Sum of utilisations: 1.0 is one device fully busy."""
    gpu_memory_mib: float | None = None
    devices: tuple[MeasuredGpu, ...] | None = None
    witness: str | None = None
    """The service that answered, as `namespace/name`."""


async def from_prometheus(client: Client, places: Sequence[Place], *, each_device: bool) -> Measured:
    """From the first of these services that measures nodes. Raises NotMeasured."""
    reasons = [] if places else ["No Prometheus was found."]
    for place in places:
        try:
            return await _ask(client, place, each_device=each_device)
        except NotMeasured as reason:
            reasons.append(str(reason))
    raise NotMeasured(" ".join(reasons))


async def _ask(client: Client, place: Place, *, each_device: bool) -> Measured:
    async def ask(query: str) -> list[Sample]:
        target = (place.namespace, place.service, "api/v1/query")
        return read_vector(await client.ask_service(*target, port=place.port, params={"query": query}))

    of_devices = devices.QUERIES if each_device else {}
    try:
        answers = await asyncio.gather(*(ask(query) for query in (*QUERIES.values(), *of_devices.values())))
    except KubeError as error:
        raise NotMeasured(f"Prometheus ({place}) could not be asked: {error}") from error
    sums = {name: answer[0][1] if answer else None for name, answer in zip(QUERIES, answers, strict=False)}
    if sums["cpu_cores"] is None or sums["memory_bytes"] is None:
        raise NotMeasured(f"Prometheus ({place}) does not measure the nodes.")
    each = devices.read_devices(dict(zip(of_devices, answers[len(QUERIES) :], strict=True)))
    return Measured(**sums, devices=each or None, witness=str(place))


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


def read_vector(body: bytes) -> list[Sample]:
    """The samples of an instant query (Prometheus HTTP API v1) that are numbers. Raises NotMeasured."""
    try:
        answer = orjson.loads(body)
        if answer["status"] != "success":
            raise NotMeasured("Prometheus refused the query.")
        samples = [(dict(row["metric"]), float(row["value"][1])) for row in answer["data"]["result"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise NotMeasured("The answer in Prometheus' place is not Prometheus'.") from error
    return [(labels, value) for labels, value in samples if math.isfinite(value)]
