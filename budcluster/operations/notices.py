"""What PostgreSQL's NOTIFY says, fanned out inside the process: one LISTEN connection, however many wait.

A notice is a hint, never the truth: whoever waits also looks at the tables now and then, and does not mind being woken
for nothing. While the connection is down everybody is woken once it is back, because notices may have been missed.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import asyncpg
import structlog

from budcluster.kit.cancellation import raise_if_cancelled

log = structlog.get_logger(__name__)

_PROBE_S: Final = 15.0
_RECONNECT_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)


class Bell:
    """Wakes one waiter. Rings that come while nobody waits are remembered, once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a ring, at most `timeout_s` seconds. Whether it rang."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Notices:
    """Listens on channels for as long as `run` runs."""

    def __init__(self, dsn: str, channels: tuple[str, ...]) -> None:
        """`dsn` is a `postgresql://` URL; it holds the password."""
        self._dsn = dsn
        self._channels = channels
        self._bells: dict[tuple[str, str], set[Bell]] = defaultdict(set)
        self.is_connected = False

    @contextlib.contextmanager
    def bell(self, channel: str, payload: str = "") -> Iterator[Bell]:
        """A bell that rings for notices on a channel, with this payload or (empty) with any."""
        bell = Bell()
        key = (channel, payload)
        self._bells[key].add(bell)
        try:
            yield bell
        finally:
            self._bells[key].discard(bell)
            if not self._bells[key]:
                del self._bells[key]

    async def run(self) -> None:
        """Listen until cancelled; connect again whenever the connection is lost."""
        failures = 0
        while True:
            raise_if_cancelled()
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                if self.is_connected or failures == 0:
                    log.warning("notices.connection_lost", error=type(error).__name__)
                failures = 0 if self.is_connected else failures + 1
                self.is_connected = False
            await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])

    async def _listen(self) -> None:
        connection = await asyncpg.connect(
            self._dsn, timeout=5, server_settings={"application_name": "budcluster-notices"}
        )
        lost = Bell()
        try:
            connection.add_termination_listener(lambda _: lost.ring())
            for channel in self._channels:
                await connection.add_listener(channel, self._heard)
            self.is_connected = True
            self._ring_all()
            while not await lost.wait(_PROBE_S):
                await connection.fetchval("select 1", timeout=5)
            raise ConnectionResetError
        finally:
            connection.terminate()

    def _heard(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        for bell in (*self._bells.get((channel, str(payload)), ()), *self._bells.get((channel, ""), ())):
            bell.ring()

    def _ring_all(self) -> None:
        for bells in self._bells.values():
            for bell in bells:
                bell.ring()
