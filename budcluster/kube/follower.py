"""Follows all objects of one kind: lists them once, then watches from there, and lists anew when that cannot go on."""

import asyncio
from collections.abc import Callable, Hashable, Iterable
from contextlib import aclosing
from typing import Any, Final, Generic, TypeVar

from budcluster.kit.cancellation import raise_if_cancelled
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import Forbidden, Gone, NotFound
from budcluster.kube.resources import Resource

Json = dict[str, Any]
KeyT = TypeVar("KeyT", bound=Hashable)

_PAGE: Final = 250
"""Objects of a page: half of the usual, since two pages are in memory at once."""
_TURN: Final = 25
"""Objects handled before other tasks get their turn: a few milliseconds."""
_AGAIN_S: Final = 0.2


class Follower(Generic[KeyT]):
    """Tells `see` of every object that is there or has changed, and `lose` of every key that is gone.

    `see` returns the object's key. With `optional` the kind may be absent or forbidden, also later on: then there are
    no objects, and every `absent_s` seconds it is looked for again.
    """

    def __init__(
        self,
        resource: Resource,
        see: Callable[[Json], KeyT],
        lose: Callable[[KeyT], None],
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        optional: bool = False,
        absent_s: float = 60.0,
    ) -> None:
        self._resource = resource
        self._see = see
        self._lose = lose
        self._namespace = namespace
        self._labels = label_selector
        self._fields = field_selector
        self._optional = optional
        self._absent_s = absent_s
        self._version: str | None = None
        self._keys: set[KeyT] = set()
        self.listed = False
        """Whether everything was seen, and no change can have been missed since but those under way."""

    def expect(self, keys: Iterable[KeyT]) -> None:
        """Objects that were there before; `lose` is told of those that the first list does not show."""
        self._keys |= set(keys)

    def start_anew(self) -> None:
        """Have everything listed again, though the watch could go on from where it was."""
        self._version, self.listed = None, False

    async def list(self, client: ClusterClient) -> None:
        """See everything, unless the watch can go on from where it was. Raises KubeError."""
        while self._version is None:
            try:
                await self._list(client)
            except Gone:
                await asyncio.sleep(_AGAIN_S)
            except (NotFound, Forbidden):
                if not self._optional:
                    raise
                self._replace(set())
                break
        self.listed = True

    async def watch(self, client: ClusterClient, heard: Callable[[], None]) -> None:
        """Follow changes for ever. `heard` is called with every sign of life. Raises KubeError."""
        while True:
            await self.list(client)
            if self._version is None:
                await asyncio.sleep(self._absent_s)
                continue
            events = client.watch(
                self._resource,
                resource_version=self._version,
                namespace=self._namespace,
                label_selector=self._labels,
                field_selector=self._fields,
            )
            try:
                async with aclosing(events):
                    async for event in events:
                        self._take(event)
                        heard()
                        raise_if_cancelled()
            except Gone:
                self._version, self.listed = None, False
            except (NotFound, Forbidden):
                if not self._optional:
                    raise
                self._version = None
                self._replace(set())
            # A connection that breaks at that moment hides a cancellation.
            raise_if_cancelled()
            await asyncio.sleep(_AGAIN_S)

    async def _list(self, client: ClusterClient) -> None:
        seen: set[KeyT] = set()
        version = ""
        pages = client.list_pages(
            self._resource,
            namespace=self._namespace,
            label_selector=self._labels,
            field_selector=self._fields,
            limit=_PAGE,
        )
        async with aclosing(pages):
            async for page in pages:
                version = str(page["metadata"]["resourceVersion"])
                for number, item in enumerate(page["items"]):
                    key = self._see(item)
                    seen.add(key)
                    # Now: this list may break, and the next one must know what is to be lost.
                    self._keys.add(key)
                    if number % _TURN == _TURN - 1:
                        await asyncio.sleep(0)
        self._replace(seen)
        self._version = version

    def _replace(self, seen: set[KeyT]) -> None:
        for key in self._keys - seen:
            self._lose(key)
        self._keys = seen

    def _take(self, event: Json) -> None:
        item = event["object"]
        self._version = str(item["metadata"]["resourceVersion"])
        match event["type"]:
            case "ADDED" | "MODIFIED":
                self._keys.add(self._see(item))
            case "DELETED":
                key = self._see(item)
                self._keys.discard(key)
                self._lose(key)
            case _:
                pass  # a bookmark: the version was all there is to it
