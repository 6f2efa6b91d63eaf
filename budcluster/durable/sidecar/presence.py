"""Who is alive. A process owns leases while it holds an advisory lock on a connection of its own.

* The lock's connection has an idle-session timeout and a heartbeat, so the server itself ends a process that is frozen.
* When the connection breaks the lock is taken again at once. Others give an owner up only after they have seen its lock
  free twice, a second apart; after a restart of PostgreSQL, when every lock is gone, they wait for longer.
* Giving up deletes the owner's row, and that frees its leases. An owner that finds its row gone starts anew.

The same connection listens for the wake-up calls of other replicas.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import asyncpg
import structlog

from budcluster.durable.sidecar.database import TEMPORARY

log = structlog.get_logger(__name__)

LOCK_SPACE: Final = 8472
"""First key of the advisory locks; the second is the owner's id."""

_HEARTBEAT_S: Final = 5.0
_BEATS_IN_SILENCE: Final = 3
_RECONNECT_PAUSE_S: Final = 0.2
_PROBE_EVERY_S: Final = 3.0
_SUSPECT_FOR_S: Final = 1.0
_RESTART_GRACE_S: Final = 15.0

_REGISTER: Final = "insert into wf_owners (host) values ($1) returning id"
_STILL_REGISTERED: Final = "select exists (select from wf_owners where id = $1)"
_SUSPECTS: Final = """
select o.id from wf_owners o
where o.id <> $1
  and (o.registered_at > pg_postmaster_start_time()
       or now() - pg_postmaster_start_time() > make_interval(secs => $2))
  and not exists (
    select from pg_locks l
    where l.locktype = 'advisory' and l.database = (select oid from pg_database where datname = current_database())
      and l.classid = $3 and l.objid = o.id and l.objsubid = 2 and l.granted)
"""
_GIVE_UP: Final = "delete from wf_owners where id = $1 and pg_try_advisory_xact_lock($2, id) returning id"


class Presence:
    """Keeps this process registered, and gives up others that are gone."""

    def __init__(
        self, dsn: str, *, silence: timedelta, on_wake: Callable[[str], None], on_change: Callable[[], None]
    ) -> None:
        """`silence` ends the session of a frozen process.

        `on_wake` gets the instance id of a call from another replica, "" when work was freed.

        `on_change` is called when this process got an owner id, kept it through a broken connection, or lost it.
        """
        self._dsn = dsn
        self._silence = silence
        self._heartbeat_s = min(_HEARTBEAT_S, _PROBE_EVERY_S, silence.total_seconds() / _BEATS_IN_SILENCE)
        self._on_wake = on_wake
        self._on_change = on_change
        self._suspects: dict[int, float] = {}
        self.owner: int | None = None
        """This process's id while it is known to be registered."""
        self.registrations = 0
        self.given_up = 0

    async def run(self) -> None:
        """Stay registered until cancelled; then sign off."""
        try:
            while True:
                try:
                    await self._attend()
                except TEMPORARY as error:
                    log.warning("workflow_owner.connection_lost", owner=self.owner, error=str(error))
                except Exception:  # background loop: without it this process would be given up
                    log.exception("workflow_owner.connection_broken", owner=self.owner)
                await asyncio.sleep(_RECONNECT_PAUSE_S)
        finally:
            await asyncio.shield(self._sign_off())

    async def _attend(self) -> None:
        connection = await asyncpg.connect(
            self._dsn,
            timeout=10,
            command_timeout=10,
            server_settings={
                "idle_session_timeout": str(int(self._silence.total_seconds() * 1000)),
                "application_name": "budcluster-workflow-owner",
            },
        )
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await self._register(connection)
            await connection.add_listener("wf_wake", lambda _c, _pid, _channel, payload: self._on_wake(str(payload)))
            self._on_wake("")  # calls may have been missed
            last_probe = 0.0
            while not lost.is_set():
                if not await connection.fetchval(_STILL_REGISTERED, self.owner):
                    log.warning("workflow_owner.was_given_up", owner=self.owner)
                    self._lose_owner()
                    return
                if time.monotonic() - last_probe >= (_SUSPECT_FOR_S if self._suspects else _PROBE_EVERY_S):
                    last_probe = time.monotonic()
                    await self._probe(connection)
                pause = min(_SUSPECT_FOR_S, self._heartbeat_s) if self._suspects else self._heartbeat_s
                try:
                    async with asyncio.timeout(pause):
                        await lost.wait()
                except TimeoutError:
                    pass
        finally:
            connection.terminate()

    async def _register(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        if self.owner is not None:
            await connection.execute("select pg_advisory_lock($1, $2)", LOCK_SPACE, self.owner)
            if await connection.fetchval(_STILL_REGISTERED, self.owner):
                log.info("workflow_owner.lock_taken_again", owner=self.owner)
                self._on_change()
                return
            self._lose_owner()
        async with connection.transaction():
            owner: int = await connection.fetchval(_REGISTER, socket.gethostname())
            await connection.execute("select pg_advisory_lock($1, $2)", LOCK_SPACE, owner)
        self.owner = owner
        self.registrations += 1
        log.info("workflow_owner.registered", owner=owner)
        self._on_change()

    def _lose_owner(self) -> None:
        self.owner = None
        self._on_change()

    async def _probe(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Give up owners whose lock was free in two probes that lie far enough apart."""
        now = time.monotonic()
        free = {row["id"] for row in await connection.fetch(_SUSPECTS, self.owner, _RESTART_GRACE_S, LOCK_SPACE)}
        self._suspects = {owner: since for owner, since in self._suspects.items() if owner in free}
        for owner in free:
            since = self._suspects.setdefault(owner, now)
            if now - since < _SUSPECT_FOR_S:
                continue
            del self._suspects[owner]
            if await connection.fetchval(_GIVE_UP, owner, LOCK_SPACE) is not None:
                self.given_up += 1
                log.warning("workflow_owner.given_up", owner=owner)
                await connection.execute("select pg_notify('wf_wake', '')")

    async def _sign_off(self) -> None:
        if self.owner is None:
            return
        try:
            connection = await asyncpg.connect(self._dsn, timeout=1, command_timeout=1)
            await connection.execute("delete from wf_owners where id = $1", self.owner)
            await connection.close(timeout=1)
        except TEMPORARY:
            pass  # the others find the lock free
        self.owner = None
