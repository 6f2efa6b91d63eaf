"""Logs of a deployment: opened at the cluster, and written as plain text or as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import groupby
from typing import Final
from uuid import UUID

from budcluster.api.sse import frame
from budcluster.cluster.access import ClusterAccess, NoCredential
from budcluster.deployment import repository
from budcluster.deployment.logs.cursor import Cursor, Source
from budcluster.deployment.logs.errors import LogsRefused, LogsUnavailable, NoLogs
from budcluster.deployment.logs.reading import LogReading, Wanted
from budcluster.deployment.logs.window import Entry, Notice, Window
from budcluster.deployment.models import Deployment
from budcluster.kit.database import Database
from budcluster.kube.errors import KubeError
from budcluster.kube.ownership import LABEL_DEPLOYMENT
from budcluster.kube.refusals import KubeconfigRefused

Batch = list[Entry | Notice]
_NOTICE: Final = "# budcluster: "


@dataclass
class LogStream:
    """Logs that the cluster gives."""

    batches: AsyncGenerator[Batch, None]
    """Close it."""
    several: bool
    """Whether there was more than one container at the start."""


class DeploymentLogs:
    """Opens logs. Each request reads for itself, as fast as its reader takes the lines."""

    def __init__(self, database: Database, access: ClusterAccess) -> None:
        self._database = database
        self._access = access

    async def open(self, deployment_id: UUID, wanted: Wanted, *, after: Cursor) -> LogStream:
        """The lines, in batches. The cluster has answered when this returns.

        Raises DeploymentNotFound, ClusterNotFound, LogsUnavailable, LogsRefused and NoLogs.
        """
        async with self._database.reading() as session:
            deployment = await repository.get_deployment(session, deployment_id)
        batches = self._read(deployment, wanted, after)
        try:
            first = await anext(batches)
        except KubeError as error:
            raise (LogsUnavailable if error.is_temporary else LogsRefused)(error.sentence) from error
        except (NoCredential, KubeconfigRefused) as error:
            raise LogsRefused(str(error)) from error
        return LogStream(batches, several=len(first) > 1)

    async def _read(self, deployment: Deployment, wanted: Wanted, after: Cursor) -> AsyncGenerator[Batch, None]:
        """First an empty line of each container that is there: the cluster has answered. Then the lines."""
        window = Window()
        async with self._access.open(deployment.cluster_id, operation="logs") as door:
            selector = f"{LABEL_DEPLOYMENT}={deployment.id}"
            reading = LogReading(door.client, deployment.namespace, selector, wanted, after=after, window=window)
            await reading.prepare()
            if not reading.sources and not wanted.follow:
                raise NoLogs(reading.present)
            yield [Entry(source, "", "") for source in reading.sources]
            task = asyncio.create_task(reading.run(), name="logs")
            try:
                while batch := await window.take():
                    yield batch
                await task
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def as_text(stream: LogStream, *, timestamps: bool) -> AsyncGenerator[bytes, None]:
    """Lines with their time if wanted, after `[pod/container]` from when there is more than one container."""
    sources: set[Source] = set()
    try:
        async for batch in stream.batches:
            if not stream.several:
                sources |= {entry.source for entry in batch if isinstance(entry, Entry)}
                stream.several = len(sources) > 1
            yield "".join(_line(entry, several=stream.several, timestamps=timestamps) for entry in batch).encode()
    finally:
        await stream.batches.aclose()


def _line(entry: Entry | Notice, *, several: bool, timestamps: bool) -> str:
    if isinstance(entry, Notice):
        return f"{_NOTICE}{entry.text}\n"
    prefix = f"[{entry.source[0]}/{entry.source[1]}] " if several else ""
    return f"{prefix}{entry.stamp} {entry.text}\n" if timestamps else f"{prefix}{entry.text}\n"


async def as_events(stream: LogStream, *, after: Cursor) -> AsyncGenerator[bytes, None]:
    """`log` events with consecutive lines of one container; `notice` when the cluster was lost; `end` at the end."""
    cursor = Cursor(after.places)
    try:
        async for batch in stream.batches:
            for source, entries in groupby(batch, key=lambda entry: getattr(entry, "source", None)):
                yield _frame(cursor, source, list(entries))
        yield frame({}, event="end", event_id=str(cursor))
    finally:
        await stream.batches.aclose()


def _frame(cursor: Cursor, source: Source | None, entries: Batch) -> bytes:
    if source is None:
        return frame({"detail": " ".join(entry.text for entry in entries)}, event="notice", event_id=str(cursor))
    lines = []
    for entry in entries:
        if isinstance(entry, Entry):
            cursor.advance(source, entry.stamp)
            lines.append({"at": entry.stamp, "text": entry.text})
    data = {"pod": source[0], "container": source[1], "lines": lines}
    return frame(data, event="log", event_id=str(cursor))
