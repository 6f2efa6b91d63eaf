"""Connects to a cluster's API server, to an address that was judged: a name may lead anywhere, and elsewhere tomorrow.

Helm and Ansible resolve names by themselves. They are only run on a cluster that was spoken to through this before, so
a name that leads to this machine is refused; one that leads elsewhere a moment later is beyond what is done here.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from budcluster.kube.errors import AddressRefused
from budcluster.kube.server_address import is_refused

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, the preferred one first. Raises OSError."""

_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0)


_RESOLVERS: Final = ThreadPoolExecutor(32, thread_name_prefix="resolver")
"""Of their own: a dead name server holds a thread for half a minute, and the loop's own few are for everybody."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """As this machine resolves names."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVERS, ask)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def transport_to(
    server: str, context: ssl.SSLContext, *, allow_local: bool, resolver: Resolve
) -> httpx.AsyncHTTPTransport:
    """The way to `server`: direct and judged, or by the proxy of this process, whose own rules then hold."""
    if proxy := _proxy_for(httpx.URL(server).host):
        return httpx.AsyncHTTPTransport(verify=context, limits=_LIMITS, proxy=proxy)
    return _Judged(context, JudgedNetwork(allow_local=allow_local, resolver=resolver))


class JudgedNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections where all addresses of a host may be spoken to, and to one of those that were judged."""

    def __init__(self, *, allow_local: bool, resolver: Resolve = resolve) -> None:
        self._allow_local = allow_local
        self._resolve = resolver
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises AddressRefused, and what the library raises."""
        addresses = await self._judged(host, port, timeout)
        patience = None if timeout is None else timeout / len(addresses)
        *others, last = addresses
        for address in others:
            try:
                return await self._plain.connect_tcp(address, port, patience, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._plain.connect_tcp(last, port, patience, local_address, socket_options)

    async def _judged(self, host: str, port: int, timeout_s: float | None) -> Sequence[str]:
        if _is_address(host):
            return [host]  # judged when the kubeconfig was read
        try:
            async with asyncio.timeout(timeout_s):
                addresses = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from error
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error.strerror or error}") from error
        for address in addresses:
            if is_refused(ipaddress.ip_address(address.partition("%")[0]), allow_local=self._allow_local):
                raise AddressRefused(
                    f"{host} leads to {address}, which from here is not a cluster but this machine or its "
                    "surroundings; use the name or address under which the cluster is reached from elsewhere."
                )
        if not addresses:
            raise httpcore.ConnectError(f"{host} has no address")
        return addresses

    async def sleep(self, seconds: float) -> None:
        """For the library's retries."""
        await self._plain.sleep(seconds)


class _Judged(httpx.AsyncHTTPTransport):
    """httpx's transport over a pool of ours: it takes no network of its caller's."""

    def __init__(self, context: ssl.SSLContext, network: JudgedNetwork) -> None:
        super().__init__(verify=context, limits=_LIMITS)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=_LIMITS.max_connections,
            max_keepalive_connections=_LIMITS.max_keepalive_connections,
            keepalive_expiry=_LIMITS.keepalive_expiry,
            network_backend=network,
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _proxy_for(host: str) -> str | None:
    proxies = getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    return None if not proxy or proxy_bypass(host) else proxy
