"""One API server over HTTPS: calls repeated where that is safe, streams of lines, and errors of our own instead of the
HTTP library's.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import httpx
import orjson

from budcluster.kit.redaction import Redactor
from budcluster.kube.errors import (
    CertificateProblem,
    KubeError,
    Rejected,
    ServerFailed,
    TooManyRequests,
    Unreachable,
    refusal,
)
from budcluster.kube.kubeconfig import Kubeconfig
from budcluster.kube.network import Resolve, transport_to
from budcluster.kube.server_certificate import end_of_certificate

Json = dict[str, Any]

_USER_AGENT: Final = "budcluster"
_CONNECT_S: Final = 5.0
_MARGIN_S: Final = 1.0
_SHORTEST_TRY_S: Final = 0.05
_LARGEST_BODY: Final = 64 * 1024 * 1024
"""Bytes. 500 nodes with images and annotations are about 15 MiB."""
_LONGEST_LINE: Final = 16 * 1024 * 1024
_ATTEMPTS: Final = 4
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0
_MESSAGE: Final = 256
_BUSY: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and how an error names it: the credential may not `verb` `what`."""

    method: str
    path: str
    verb: str
    what: str
    params: Mapping[str, str]
    body: bytes | None = None
    media_type: str = "application/json"
    repeatable: bool = True
    """Whether doing it twice is the same as once."""


class Connection:
    """The server of one kubeconfig, with its credential. Safe for many tasks of one event loop."""

    def __init__(self, kubeconfig: Kubeconfig, *, allow_local: bool, timeout_s: float, resolver: Resolve) -> None:
        self._redactor = Redactor(kubeconfig.secrets)
        self._timeout_s = timeout_s
        headers = {"accept": "application/json", "user-agent": _USER_AGENT}
        if kubeconfig.token:
            headers["authorization"] = f"Bearer {kubeconfig.token}"
        self._extensions = {"sni_hostname": kubeconfig.tls_server_name} if kubeconfig.tls_server_name else {}
        self._server = kubeconfig.server
        self.certificate_ends_at: datetime | None = None
        """Known once the server has answered."""
        self._http = httpx.AsyncClient(
            base_url=kubeconfig.server,
            headers=headers,
            transport=transport_to(
                kubeconfig.server, _tls_context(kubeconfig), allow_local=allow_local, resolver=resolver
            ),
            timeout=httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close what is open to the server."""
        await self._http.aclose()

    async def json(self, call: Call) -> Json:
        """The JSON object that answers. Raises KubeError."""
        return decoded(await self.answer(call))

    async def answer(self, call: Call) -> bytes:
        """The body of a good answer. Waits and repeats where that is safe, within the time limit. Raises KubeError."""
        now = asyncio.get_running_loop().time
        deadline, pause = now() + self._timeout_s, _FIRST_PAUSE_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._once(call, left_s=max(deadline - now(), _SHORTEST_TRY_S))
            except (Unreachable, TooManyRequests, ServerFailed) as error:
                wait = min(max(error.retry_after_s, pause), _LONGEST_PAUSE_S)
                if attempt == _ATTEMPTS or now() + wait >= deadline or not _worth_repeating(error, call):
                    raise
                await asyncio.sleep(wait)
                pause *= 2
        raise AssertionError("the last attempt returns or raises")

    async def lines(self, call: Call, *, silence_s: float | None) -> AsyncGenerator[bytes, None]:
        """The lines of a stream until it ends or nothing comes for `silence_s`. Raises KubeError."""
        async with self._opened(call, silence_s=silence_s) as response:
            kept = bytearray()
            async for chunk in response.aiter_bytes():
                *ends, rest = chunk.split(b"\n")
                for end in ends:
                    yield bytes(kept + end)
                    kept.clear()
                kept += rest
                if len(kept) > _LONGEST_LINE:
                    raise ServerFailed(f"{self._server} sent a line of more than {_LONGEST_LINE} bytes.")
            if kept:
                yield bytes(kept)

    def refusal(self, call: Call, code: int, status: Json) -> KubeError:
        """The error for a `Status` object of this code, its message cut and masked."""
        message = status.get("message")
        said = self._redactor.mask(message)[:_MESSAGE] if isinstance(message, str) else f"status {code}"
        return refusal(code, verb=call.verb, resource=call.what, said=said, reason=str(status.get("reason") or ""))

    async def _once(self, call: Call, *, left_s: float) -> bytes:
        try:
            # The HTTP library's own limits come first: cancelled from outside in a TLS handshake (httpcore 1.0) it
            # leaves the socket to the garbage collector. This one is for servers that dribble.
            async with asyncio.timeout(left_s + _MARGIN_S), self._opened(call, silence_s=left_s) as response:
                return await self._body(response)
        except TimeoutError:
            raise Unreachable(f"{self._server} took longer than {self._timeout_s:g} s to answer.") from None

    @asynccontextmanager
    async def _opened(self, call: Call, *, silence_s: float | None) -> AsyncIterator[httpx.Response]:
        """A response whose status is good, body not read. Translates all errors."""
        request = self._http.build_request(
            call.method,
            call.path,
            params=dict(call.params),
            content=call.body,
            headers={"content-type": call.media_type} if call.body is not None else None,
            timeout=httpx.Timeout(silence_s, connect=min(_CONNECT_S, silence_s or _CONNECT_S)),
            extensions=self._extensions or None,
        )
        try:
            response = await self._sent(request)
            self.certificate_ends_at = self.certificate_ends_at or end_of_certificate(response)
            try:
                if response.status_code >= 300:
                    error = self.refusal(call, response.status_code, await self._status(response))
                    error.retry_after_s = _retry_after(response)
                    raise error
                yield response
            finally:
                await response.aclose()
        except httpx.HTTPError as failure:
            raise self._unreachable(failure) from failure

    async def _sent(self, request: httpx.Request) -> httpx.Response:
        """The response's head. Cancelled in a TLS handshake, httpcore 1.0 would leak the socket: it may end first."""
        sending = asyncio.ensure_future(self._http.send(request, stream=True))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            await asyncio.wait({sending}, timeout=_MARGIN_S)
            sending.cancel()
            (ended,) = await asyncio.gather(sending, return_exceptions=True)
            if isinstance(ended, httpx.Response):
                await ended.aclose()
            raise

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _LARGEST_BODY:
                raise Rejected(f"{self._server} sent more than {_LARGEST_BODY} bytes.")
        return bytes(body)

    async def _status(self, response: httpx.Response) -> Json:
        try:
            return decoded(await self._body(response))
        except ServerFailed:
            return {}

    def _unreachable(self, error: httpx.HTTPError) -> KubeError:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                sentence = (
                    f"The certificate of {self._server} is not valid: {cause.verify_message}. "
                    "Is the certificate authority in the kubeconfig the cluster's own?"
                )
                return CertificateProblem(sentence)
            cause = cause.__cause__ or cause.__context__
        how = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
        return Unreachable(f"{self._server} {how} ({type(error).__name__}); is the cluster up and reachable from here?")


def decoded(body: bytes) -> Json:
    """The JSON object in an answer. Raises ServerFailed."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise ServerFailed("The cluster's answer is not a JSON object; is this the address of a Kubernetes API server?")
    return content


def _tls_context(kubeconfig: Kubeconfig) -> ssl.SSLContext:
    """Trusts the kubeconfig's certificate authority and no other; shows the client certificate if there is one."""
    context = ssl.create_default_context(cadata=kubeconfig.certificate_authority.decode())
    if kubeconfig.client_certificate is not None and kubeconfig.client_key is not None:
        # The library only takes files; this one is in memory.
        descriptor = os.memfd_create("client", os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(kubeconfig.client_certificate + kubeconfig.client_key)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    return context


def _worth_repeating(error: KubeError, call: Call) -> bool:
    if isinstance(error, TooManyRequests):
        return True
    if isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout):
        return True  # nothing was sent
    return call.repeatable and (isinstance(error, Unreachable) or error.status in _BUSY)


def _retry_after(response: httpx.Response) -> float:
    seconds = response.headers.get("retry-after", "")
    return float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0
