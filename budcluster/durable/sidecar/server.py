"""The embedded sidecar as a whole: a thread with an event loop of its own, and the gRPC server on it.

A loop of its own because the SDK blocks: its worker started on the loop that serves it would wait for itself.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

import grpc.aio
import structlog
import uvloop

from budcluster.durable.sidecar.database import TEMPORARY
from budcluster.durable.sidecar.dispatcher import Dispatcher
from budcluster.durable.sidecar.limits import MIB, Limits
from budcluster.durable.sidecar.presence import Presence
from budcluster.durable.sidecar.protos import rpc
from budcluster.durable.sidecar.servicer import Servicer, TokenGuard
from budcluster.durable.sidecar.store import Store
from budcluster.durable.sidecar.watch import Watch

log = structlog.get_logger(__name__)

_MESSAGE_LIMIT: Final = 64 * MIB
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
    ("grpc.max_send_message_length", _MESSAGE_LIMIT),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)
_RECONCILE_EVERY_S: Final = 15.0
_TIDY_EVERY_S: Final = 30.0
_PURGE_EVERY_S: Final = 600.0
_COUNT_PEERS_EVERY_S: Final = 2.0


class SidecarNotStarted(RuntimeError):
    """The embedded sidecar could not listen; the message says why."""


class EmbeddedSidecar:
    """Serves the workflow protocol on loopback or a unix socket and keeps everything in PostgreSQL.

    Start and stop are called from ordinary threads and block only for as long as it takes to listen and to drain.
    PostgreSQL may be away at the start: calls wait for it.
    """

    def __init__(
        self,
        dsn: str,
        *,
        token: str,
        address: str = "127.0.0.1:0",
        limits: Limits | None = None,
    ) -> None:
        """`dsn` as asyncpg takes it; `address` is `127.0.0.1:PORT` (0: any free one) or `unix:/path`.

        Callers must send `token` in the metadata `dapr-api-token`.
        """
        self._dsn = dsn.replace("postgresql+asyncpg://", "postgresql://", 1)
        self._token = token
        self._address = address
        self._limits = limits or Limits()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._dispatcher: Dispatcher | None = None
        self._presence: Presence | None = None
        self._store: Store | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._grace_s = 0.0
        self._counts: dict[str, int] = {}
        self.port: int | None = None
        """The bound TCP port; None with a unix socket."""

    @property
    def endpoint(self) -> str:
        """The address for the SDK (`DAPR_GRPC_ENDPOINT`)."""
        return self._address if self._address.startswith("unix:") else f"127.0.0.1:{self.port}"

    def start(self) -> int | None:
        """Listen; returns the port. Raises SidecarNotStarted."""
        self._thread = threading.Thread(target=self._run, name="embedded-sidecar", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise SidecarNotStarted(f"The embedded sidecar cannot listen on {self._address}: {self._failure}")
        return self.port

    def drain(self) -> None:
        """Take no new work from now on; what runs may finish. Returns at once."""
        if self._loop is not None and self._dispatcher is not None:
            dispatcher = self._dispatcher
            self._loop.call_soon_threadsafe(lambda: setattr(dispatcher.desk, "is_draining", True))

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Take no new work, wait up to `grace_s` seconds for what runs, give the rest back, and end."""
        if self._thread is None or self._loop is None:
            return
        self._grace_s = grace_s
        stop = self._stop
        if stop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop may end just now
                self._loop.call_soon_threadsafe(stop.set)
        self._thread.join(grace_s + 15)
        self._thread = None

    def snapshot(self) -> dict[str, int]:
        """Numbers for metrics: work that waits and runs, and what has happened since the start."""
        if self._dispatcher is None or self._presence is None or self._store is None:
            return {}
        return {
            **self._dispatcher.snapshot(),
            **self._counts,
            "database_interruptions": self._store.interruptions,
            "owner_registrations": self._presence.registrations,
            "owners_given_up": self._presence.given_up,
        }

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
            log.exception("embedded_sidecar.ended", error=str(error))
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        watch = Watch()
        store = self._store = Store(self._dsn)
        await store.open()

        def owner() -> int | None:
            return None if self._presence is None else self._presence.owner

        dispatcher = self._dispatcher = Dispatcher(store, self._limits, owner=owner, watch=watch)

        def wake(instance_id: str) -> None:
            watch.notify(instance_id)
            dispatcher.desk.nudge(instance_id or None, tasks=True)

        def owner_changed() -> None:
            if owner() is None:
                dispatcher.desk.forget_everything()
            dispatcher.desk.distrust()
            dispatcher.desk.nudge(tasks=True)

        self._presence = Presence(self._dsn, silence=self._limits.silence, on_wake=wake, on_change=owner_changed)
        server = self._server(Servicer(store, dispatcher, watch, self._limits))
        self.port = server.add_insecure_port(self._address) or None
        await server.start()
        tasks = self._start_loops(store, dispatcher)
        self._started.set()
        log.info("embedded_sidecar.started", endpoint=self.endpoint)
        await self._stop.wait()
        await dispatcher.drain(self._grace_s)
        await server.stop(1.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()
        log.info("embedded_sidecar.stopped")

    def _server(self, servicer: Servicer) -> grpc.aio.Server:
        server = grpc.aio.server(interceptors=[TokenGuard(self._token)], options=list(_OPTIONS))
        rpc.add_TaskHubSidecarServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        return server

    def _start_loops(self, store: Store, dispatcher: Dispatcher) -> list["asyncio.Task[None]"]:
        assert self._presence is not None
        seen = store.interruptions

        async def reconcile() -> None:
            nonlocal seen
            seen = store.interruptions
            await dispatcher.desk.reconcile()

        async def tidy() -> None:
            await store.drop_unreadable()
            if dispatcher.desk.streams and await store.unstall():
                dispatcher.desk.nudge()

        async def purge() -> None:
            purged = 1
            while purged:
                purged = await store.purge_older_than(self._limits.keep_finished)

        async def count() -> None:
            self._counts = await store.counts()
            dispatcher.desk.has_peers = self._counts["owners"] > 1
            if store.interruptions != seen:
                await reconcile()

        return [
            asyncio.create_task(self._presence.run(), name="presence"),
            asyncio.create_task(dispatcher.run(), name="dispatcher"),
            asyncio.create_task(_repeat(reconcile, _RECONCILE_EVERY_S), name="reconcile"),
            asyncio.create_task(_repeat(tidy, _TIDY_EVERY_S), name="tidy"),
            asyncio.create_task(_repeat(purge, _PURGE_EVERY_S), name="purge"),
            asyncio.create_task(_repeat(count, _COUNT_PEERS_EVERY_S), name="count"),
        ]


async def _repeat(work: Callable[[], Coroutine[Any, Any, None]], every_s: float) -> None:
    """Do the work every so often, also after PostgreSQL was away."""
    while True:
        try:
            await work()
        except TEMPORARY as error:
            log.warning("embedded_sidecar.chore_postponed", error=str(error))
        except Exception:  # background loop: one bad round must not end the upkeep
            log.exception("embedded_sidecar.chore_failed")
        await asyncio.sleep(every_s)
