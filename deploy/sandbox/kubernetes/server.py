"""A cluster behind TLS on a loopback port, in a thread of its own or as the whole process."""

import asyncio
import base64
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

import uvicorn
import yaml

from sandbox.kubernetes import contracts
from sandbox.kubernetes.app import ApiServer
from sandbox.kubernetes.certificates import Authority
from sandbox.kubernetes.cluster import Cluster, Options
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.http import Scope
from sandbox.kubernetes.simulation.simulation import Simulation
from sandbox.kubernetes.simulation.world import Settings
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]
T = TypeVar("T")

_START_S = 60.0


class KubernetesServer:
    """A simulated API server for tests and for trying things out.

    Use it as a context manager (`with KubernetesServer() as server:`): it runs in its own thread, with its own event
    loop. Or await `serve()` to give it the running loop. What touches `cluster` from another thread goes through
    `call`. `simulate` makes another simulation than the usual one.
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        port: int = 0,
        simulate: Callable[[Store], contracts.Simulation] | None = None,
    ) -> None:
        options = options or Options()
        settings = Settings(nodes=options.nodes, seed=options.seed, pod_security=options.pod_security)
        simulate = simulate or (lambda store: Simulation(store, settings))
        self._authority = Authority()
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self.cluster = Cluster(options, ca_pem=self._authority.pem, simulate=simulate)
        self.cluster.address = f"127.0.0.1:{self.port}"
        self.app = ApiServer(self.cluster)
        self.app.abort = self._abort
        self.app.admin.actions["gone"] = self._on_gone
        self.app.admin.actions["certificate"] = self._on_certificate
        self._tls = self._authority.context()
        self._uvicorn = uvicorn.Server(self._config())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_up: Future[None] = Future()
        self._return: asyncio.Task[None] | None = None

    # -- running ---------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Serve until `stop`; the running event loop becomes the cluster's."""
        self._loop = asyncio.get_running_loop()
        if self.cluster.simulation:
            self.cluster.simulation.start()
        waiting = asyncio.create_task(self._announce())
        try:
            await self._uvicorn._serve([self._socket])  # noqa: SLF001 -- serve() would take over the process's signals
        finally:
            waiting.cancel()
            if self.cluster.simulation:
                await self.cluster.simulation.stop()

    def stop(self) -> None:
        """Ask the server to end; from any thread."""
        self._uvicorn.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._abort_all)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="sandbox-kubernetes", daemon=True)
        self._thread.start()
        self._is_up.result(timeout=_START_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        assert self._thread is not None
        self._thread.join(timeout=_START_S)

    def call(self, work: Callable[[], T]) -> T:
        """Run something in the server's thread and wait for its result: the only safe way to the store from outside."""

        async def run() -> T:
            return work()

        return self._await(run())

    # -- access ----------------------------------------------------------------------------------------------------

    @property
    def ca_pem(self) -> str:
        """The certificate that clients must trust."""
        return self._authority.pem

    def kubeconfig(self, *, token: str | None = None, namespace: str = "default") -> str:
        """A kubeconfig with inline CA and token: the administrator's, unless another one is given."""
        authority = base64.b64encode(self.ca_pem.encode()).decode()
        name = "sandbox"
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": name, "cluster": {"server": self.url, "certificate-authority-data": authority}}],
                "users": [{"name": name, "user": {"token": token or self.cluster.tokens.admin}}],
                "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
                "current-context": name,
            },
            sort_keys=False,
        )

    def write_kubeconfig(self, path: Path, *, token: str | None = None) -> Path:
        """Write the kubeconfig for its owner's eyes only."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(self.kubeconfig(token=token))
        return path

    # -- faults ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """A fault for the length of a `with` block."""
        number = self.call(lambda: self.cluster.faults.add(fault))
        try:
            yield
        finally:
            self.call(lambda: self.cluster.faults.remove(number))

    def cut_watches(self) -> int:
        """End every open watch; returns how many there were."""
        return self.call(self.app.watches.cut)

    def expire_history(self) -> None:
        """Make every older resourceVersion too old: 410 from now on."""
        self.call(self.cluster.store.history.compact)

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """Refuse connections and drop open ones for the length of a `with` block."""
        self._await(self._shut())
        try:
            yield
        finally:
            self._await(self._open())

    def be_gone(self, seconds: float) -> None:
        """Refuse connections and drop open ones for that many real seconds."""
        self._await(self._leave(seconds))

    def expire_certificate(self, *, expired: bool = True) -> None:
        """Show an expired certificate at the next handshakes, or a good one again; open connections end."""
        self._await(self._on_certificate({"expired": expired}))

    # -- internals -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self.serve())
        except BaseException as error:
            if not self._is_up.done():
                self._is_up.set_exception(error)
            raise

    def _await(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        assert self._loop is not None, "the server does not run"
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=_START_S)

    async def _announce(self) -> None:
        # uvicorn tells of its start by a flag alone.
        while not self._uvicorn.started:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self._is_up.set_result(None)

    def _config(self) -> uvicorn.Config:
        config = uvicorn.Config(
            self.app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="websockets-sansio",
            http="httptools",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
        )
        config.load()
        config.ssl = self._tls
        return config

    def _abort(self, scope: Scope) -> None:
        """End one connection without an answer."""
        for connection in list(self._uvicorn.server_state.connections):
            if getattr(connection, "client", None) == scope.get("client"):
                _transport(connection).abort()

    def _abort_all(self) -> None:
        for connection in list(self._uvicorn.server_state.connections):
            _transport(connection).abort()

    async def _leave(self, seconds: float) -> None:
        await self._shut()
        self._return = asyncio.create_task(self._come_back(seconds))

    async def _come_back(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._open()

    async def _shut(self) -> None:
        if self._return is not None:
            self._return.cancel()  # it is gone already: who asked last decides when it is back
        for listener in self._uvicorn.servers:
            listener.close()
        self._abort_all()

    async def _open(self) -> None:
        self._socket = _listen(self.port)
        await self._uvicorn.startup([self._socket])

    async def _on_gone(self, body: Obj) -> Obj:
        await self._leave(float(body.get("seconds", 5)))
        return {}

    async def _on_certificate(self, body: Obj) -> Obj:
        self._authority.certify(self._tls, expired=bool(body.get("expired", True)))
        self._abort_all()
        return {}


def _transport(connection: Any) -> asyncio.Transport:
    transport: asyncio.Transport = connection.transport
    return transport


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY by it
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    listener.setblocking(False)
    return listener
