"""Reads logs of a deployment's pods from its cluster into a window: once, or for as long as somebody listens."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from budcluster.deployment.logs.cursor import Cursor, Place, Skip, Source
from budcluster.deployment.logs.window import Entry, Notice, Window
from budcluster.kit.redaction import Redactor
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import KubeError
from budcluster.kube.follower import Follower
from budcluster.kube.resources import PODS

Json = Mapping[str, Any]
_Attempt = tuple[str, str, int]
"""Pod's uid, container, number of restarts."""

_MOST_READERS: Final = 80
"""Containers followed at once by one request; the HTTP client has a hundred connections."""
_LONGEST_LINE: Final = 64 * 1024
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before each new try to reach the cluster; the last one repeats."""
_REDACTOR: Final = Redactor()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines."""

    follow: bool = False
    previous: bool = False
    pod: str | None = None
    container: str | None = None
    tail: int | None = None
    """Of each container; None: all that `since` leaves."""
    since_s: int | None = None
    since_time: str | None = None


class LogReading:
    """One request's way through the logs. `prepare`, then `run` in a task of its own."""

    def __init__(
        self,
        client: ClusterClient,
        namespace: str,
        label_selector: str,
        wanted: Wanted,
        *,
        after: Cursor,
        window: Window,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._wanted = wanted
        self._after = after
        self._window = window
        self._pods: dict[str, Json] = {}
        self._readers: dict[_Attempt, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._cut_off = False
        self._follower = Follower(PODS, self._see, self._lose, namespace=namespace, label_selector=label_selector)

    async def prepare(self) -> None:
        """Ask the cluster for the pods. Raises KubeError."""
        await self._follower.list(self._client)

    @property
    def present(self) -> list[str]:
        """`pod/container` of all pods."""
        return [f"{name_of(pod)}/{name}" for pod in self._pods.values() for name in containers_of(pod)]

    @property
    def sources(self) -> list[Source]:
        """What is there and wanted."""
        return [source for pod in self._pods.values() for source, _ in self._wanted_of(pod)]

    async def run(self) -> None:
        """Fill the window; ends it when there is no more."""
        try:
            await (self._follow() if self._wanted.follow else self._once())
        finally:
            self._window.end()

    # -- once ------------------------------------------------------------------------------------------------------

    async def _once(self) -> None:
        for pod, name in sorted(self.sources):
            try:
                await self._pass_on((pod, name), self._after.places.get((pod, name)), tail=self._wanted.tail)
            except _Broken as broken:
                await self._window.put(Notice(f"{pod}/{name}: {broken.error.sentence}"))
                if broken.error.is_temporary:
                    return

    # -- for as long as somebody listens ---------------------------------------------------------------------------

    async def _follow(self) -> None:
        failures = 0
        async with asyncio.TaskGroup() as self._group:
            for pod in list(self._pods.values()):
                self._join(pod, tail=self._wanted.tail)
            while True:
                try:
                    await self._follower.watch(self._client, self._answered)
                except KubeError as error:
                    failures = failures + 1 if self._cut_off else 0
                    await self._tell(error)
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])

    def _see(self, pod: Json) -> str:
        uid = str(pod["metadata"]["uid"])
        self._pods[uid] = pod
        if self._group is not None:
            self._join(pod, tail=None)
        return uid

    def _lose(self, uid: str) -> None:
        self._pods.pop(uid, None)
        for attempt in [one for one in self._readers if one[0] == uid and self._readers[one].done()]:
            del self._readers[attempt]

    def _join(self, pod: Json, *, tail: int | None) -> None:
        """Read what runs or has ended and is not read yet; a restarted container is a new one."""
        for source, status in self._wanted_of(pod):
            attempt = attempt_of(pod, status)
            if attempt is None or attempt in self._readers:
                continue
            reading = sum(not task.done() for task in self._readers.values())
            if self._group is not None and reading < _MOST_READERS:
                self._readers[attempt] = self._group.create_task(self._read_on(source, attempt, tail=tail))

    async def _read_on(self, source: Source, attempt: _Attempt, *, tail: int | None) -> None:
        place, failures = self._after.places.get(source), 0
        while True:
            began = place
            try:
                place = await self._pass_on(source, place, tail=tail)
                self._answered()
            except _Broken as broken:
                place = broken.place
                if not broken.error.is_temporary:
                    return
                await self._tell(broken.error)
            if not self._still_runs(attempt):
                return
            failures = 0 if place != began else failures + 1
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])

    def _still_runs(self, attempt: _Attempt) -> bool:
        pod = self._pods.get(attempt[0])
        if pod is None:
            return False
        # The API server may end a stream whose container goes on; the watch tells when the container has ended.
        return any(
            attempt_of(pod, status) == attempt and (status.get("state") or {}).get("running")
            for _, status in self._wanted_of(pod)
        )

    def _answered(self) -> None:
        self._cut_off = False

    async def _tell(self, error: KubeError) -> None:
        if not self._cut_off:
            self._cut_off = True
            await self._window.put(Notice(f"{error.sentence} The stream goes on when the cluster answers again."))

    # -- one container ---------------------------------------------------------------------------------------------

    async def _pass_on(self, source: Source, place: Place | None, *, tail: int | None) -> Place | None:
        """Put a container's lines after `place` into the window; where it ended. Raises _Broken."""
        wanted, (pod, container) = self._wanted, source
        skip, mask = Skip(place), _REDACTOR.lines().mask
        lines = self._client.log_lines(
            self._namespace,
            pod,
            container=container,
            follow=wanted.follow,
            previous=wanted.previous,
            tail_lines=None if place else tail,
            since_s=None if place or wanted.since_time else wanted.since_s,
            since_time=place.earlier if place else wanted.since_time,
            timestamps=True,
        )
        try:
            async with aclosing(lines):
                async for line in lines:
                    stamp, text = _parted(line)
                    if not stamp or skip.is_old(stamp):
                        continue
                    place = place.after(stamp) if place else Place(stamp, 1)
                    await self._window.put(Entry(source, stamp, mask(text)))
        except KubeError as error:
            raise _Broken(error, place) from error
        return place

    def _wanted_of(self, pod: Json) -> Iterator[tuple[Source, Json]]:
        name = name_of(pod)
        if self._wanted.pod not in (None, name):
            return
        for container in containers_of(pod):
            if self._wanted.container in (None, container):
                yield (name, container), status_of(pod, container)


class _Broken(Exception):
    """A log broke off after a place."""

    def __init__(self, error: KubeError, place: Place | None) -> None:
        super().__init__(error.sentence)
        self.error = error
        self.place = place


def name_of(pod: Json) -> str:
    """The pod's name."""
    return str(pod["metadata"]["name"])


def containers_of(pod: Json) -> list[str]:
    """Names of the init containers and the containers, in the order in which they start."""
    spec = pod.get("spec") or {}
    return [str(one["name"]) for key in ("initContainers", "containers") for one in spec.get(key) or ()]


def status_of(pod: Json, container: str) -> Json:
    """The container's status; empty before it has one."""
    status = pod.get("status") or {}
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((one for one in every if one.get("name") == container), {})


def attempt_of(pod: Json, status: Json) -> _Attempt | None:
    """Which run of a container has a log that can be read now; None before the first."""
    state, restarts = status.get("state") or {}, int(status.get("restartCount") or 0)
    if state.get("running") or state.get("terminated"):
        return str(pod["metadata"]["uid"]), str(status["name"]), restarts
    if (status.get("lastState") or {}).get("terminated"):
        return str(pod["metadata"]["uid"]), str(status["name"]), restarts
    return None


def _parted(line: str) -> tuple[str, str]:
    """Time and text; no time for what is not a line of the container's."""
    stamp, _, text = line.partition(" ")
    if len(stamp) < 20 or stamp[10] != "T":
        return "", line
    return stamp, text if len(text) <= _LONGEST_LINE else text[:_LONGEST_LINE] + " … (line cut)"
