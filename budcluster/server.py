"""`serve`: the HTTP server of one process, until a signal ends it."""

import asyncio
import errno
import gc
import signal
import socket
import sys

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from budcluster.api.authentication import is_loopback, listening_allowed
from budcluster.api.edge import Edge
from budcluster.api.models import ApiToken
from budcluster.app import create_app
from budcluster.bootstrap import make_service, redactor_for
from budcluster.config import Settings
from budcluster.kit.database import Database, DatabaseUnavailable
from budcluster.kit.logging import configure
from budcluster.operations.feeds import Feeds

log = structlog.get_logger(__name__)

_SHUTDOWN_S = 15
"""Seconds that open requests get to finish after a signal."""


class CannotServe(Exception):
    """Serving is refused or impossible; the text is a sentence for the operator."""


def serve(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code; says on standard error why it is not 0."""
    # uvicorn raises the signal anew once it has shut down in order; so both end here, with the log written out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pipeline = configure(settings.log, redactor_for(settings))
    try:
        asyncio.run(_check_listening(settings))
        listener = listen(settings.host, settings.port)
        service = make_service(settings)
        service.on_started = spare_what_stays
        run(create_app(settings, service), settings, listener)
    except CannotServe as error:
        sys.stderr.write(f"budcluster: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 0
    finally:
        pipeline.close()
    return 0


class _Server(uvicorn.Server):
    """Ends event streams at once when it stops: they would otherwise hold it until the time for requests is over."""

    def __init__(self, config: uvicorn.Config, feeds: Feeds) -> None:
        super().__init__(config)
        self._feeds = feeds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feeds.close()
        await super().shutdown(sockets)


def run(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    """Serve an application until a signal. The signal is raised anew once all has ended in order."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    log.info("service.listening", url=f"http://{_bracketed(settings.host)}:{settings.port}")
    if not is_loopback(settings.host) and settings.api.allow_anonymous_remote:
        log.warning("service.open_to_everybody", reason="API__ALLOW_ANONYMOUS_REMOTE is set")
    edge: Edge = app.state.edge
    _Server(config, edge.service(Feeds)).run(sockets=[listener])


def spare_what_stays() -> None:
    """Take all that the start has loaded out of the garbage collector's rounds.

    Modules, models and routes stay for the life of the process; walking through them again and again took a third of
    the processor time of large lists and stopped every request for 120 ms at a time.
    """
    gc.collect()
    gc.freeze()


async def _check_listening(settings: Settings) -> None:
    """Refuse to be reachable from elsewhere while nobody has to prove who they are.

    When the database is away the answer is not known; then the service listens and refuses every call without a token.
    """
    if is_loopback(settings.host) or settings.app_api_token or settings.api.allow_anonymous_remote:
        return
    database = Database(settings.sqlalchemy_url, settings.database)
    try:
        async with database.reading() as session:
            has_tokens = (await session.scalar(select(ApiToken.id).limit(1))) is not None
    except DatabaseUnavailable:
        return
    except SQLAlchemyError:
        has_tokens = False  # not migrated yet, so no token was ever made
    finally:
        await database.close()
    if not listening_allowed(settings.host, has_credentials=has_tokens, anonymous_remote=False):
        raise CannotServe(
            f"HOST is {settings.host}, which other machines can reach, and no token exists yet. Make one with "
            "`budcluster tokens create`, or set APP_API_TOKEN, or listen on 127.0.0.1."
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises CannotServe with the reason."""
    try:
        family = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
    except socket.gaierror:
        raise CannotServe(f"HOST is {host}, which is no address of this machine.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotServe(f"port {port} on {host} is taken; choose another one with PORT.") from None
        raise CannotServe(f"cannot listen on {host}, port {port}: {error.strerror}.") from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
