"""Where in a cluster Prometheus can be asked: the service's own one, or whatever was there before."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from budcluster.hardware import prometheus
from budcluster.hardware.models import AddonOwner, ClusterAddon
from budcluster.kube.client import ClusterClient
from budcluster.kube.resources import SERVICES

MOST: Final = 3
"""Services that are asked before it is given up."""
# The charts of Prometheus and kube-prometheus write the first; the Prometheus operator, under every Prometheus that it
# runs, the second.
_MARKS: Final = ("app.kubernetes.io/name=prometheus", "operated-prometheus=true")
_INSTANCE: Final = "app.kubernetes.io/instance"
_PORT_NAMES: Final = {"http-web", "web", "http", "http-prometheus", "prometheus"}


@dataclass(frozen=True, slots=True)
class Place:
    """A service that may be a Prometheus."""

    namespace: str
    service: str
    port: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}"


async def find_places(client: ClusterClient, addon: ClusterAddon | None) -> tuple[Place, ...]:
    """Services to ask, likeliest first. `addon` is what the service knows of Prometheus there. Raises KubeError."""
    if addon is not None and addon.owner is AddonOwner.OURS:
        return (Place(addon.namespace or prometheus.NAMESPACE, prometheus.SERVICE, prometheus.PORT),)
    namespace, release = (addon.namespace, addon.release) if addon is not None else (None, None)
    found = await asyncio.gather(*(_services(client, mark, namespace) for mark in _MARKS))
    services = [service for several in found for service in several]
    services.sort(key=lambda service: (service["metadata"].get("labels") or {}).get(_INSTANCE) != release)
    places = [place for service in services if (place := _place(service)) is not None]
    return tuple(dict.fromkeys(places))[:MOST]


async def _services(client: ClusterClient, mark: str, namespace: str | None) -> list[dict[str, Any]]:
    pages = client.list_pages(SERVICES, namespace=namespace, label_selector=mark)
    return [service async for page in pages for service in page["items"]]


def _place(service: dict[str, Any]) -> Place | None:
    ports: Sequence[dict[str, Any]] = (service.get("spec") or {}).get("ports") or ()
    chosen = next(
        (port for port in ports if port.get("port") == prometheus.PORT or port.get("name") in _PORT_NAMES), None
    )
    chosen = chosen or next(iter(ports), None)
    if chosen is None:
        return None
    return Place(service["metadata"]["namespace"], service["metadata"]["name"], int(chosen["port"]))
