"""A cluster that gives what a test put there, and nothing else."""

from collections.abc import AsyncIterator
from typing import Any, cast

from budcluster.kube.client import ClusterClient
from budcluster.kube.resources import Resource

Json = dict[str, Any]


class Shelf:
    """Objects by the plural of their kind; deletions are noted, and take effect."""

    def __init__(self, **objects: list[Json]) -> None:
        self.objects = objects
        self.deleted: list[str] = []

    @property
    def client(self) -> ClusterClient:
        """The shelf in the place of a cluster's client."""
        return cast("ClusterClient", self)

    async def list_pages(self, resource: Resource, **_: object) -> AsyncIterator[Json]:
        yield {"items": list(self.objects.get(resource.plural, ()))}

    async def delete(self, resource: Resource, name: str, **_: object) -> bool:
        self.deleted.append(name)
        kept = [one for one in self.objects[resource.plural] if one["metadata"]["name"] != name]
        self.objects[resource.plural] = kept
        return True
