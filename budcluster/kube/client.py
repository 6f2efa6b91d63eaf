"""Asks one cluster: raw JSON over HTTPS, typed errors, a time limit on every call.

Objects stay dictionaries. The typed models of the `kubernetes` package cost about five times the CPU and memory on
long lists, raise on objects that lack a required field, and its asyncio part has no watch; so this is httpx and orjson.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import httpx
import orjson

from budcluster.kit.redaction import Redactor
from budcluster.kube.errors import (
    CertificateProblem,
    KubeError,
    NotFound,
    Rejected,
    ServerFailed,
    TooManyRequests,
    Unreachable,
    refusal,
)
from budcluster.kube.kubeconfig import Kubeconfig
from budcluster.kube.network import Resolve, resolve, transport_to
from budcluster.kube.resources import ACCESS_REVIEWS, PODS, SERVICES, Resource, segment
from budcluster.kube.server_certificate import end_of_certificate

Json = dict[str, Any]

FIELD_MANAGER: Final = "budcluster"
PAGE: Final = 500
"""Objects of one list page: what kubectl asks for."""
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
class _Call:
    method: str
    path: str
    verb: str
    what: str
    params: Mapping[str, str]
    body: bytes | None = None
    media_type: str = "application/json"
    repeatable: bool = True
    """Whether doing it twice is the same as once."""


class ClusterClient:
    """One cluster's API. Use as an async context manager; safe for many tasks of one event loop.

    Streams (`watch`, `log_lines`) hold a connection: leave them early under `contextlib.aclosing`.
    """

    def __init__(
        self,
        kubeconfig: Kubeconfig,
        *,
        allow_local: bool = False,
        timeout_s: float = 30.0,
        resolver: Resolve = resolve,
    ) -> None:
        """`timeout_s` limits each call that is not a stream, retries included.

        `allow_local` lets a server's name lead to this machine; its address in the kubeconfig was judged before.
        """
        self._redactor = Redactor(kubeconfig.secrets)
        self._timeout_s = timeout_s
        headers = {"accept": "application/json", "user-agent": FIELD_MANAGER}
        if kubeconfig.token:
            headers["authorization"] = f"Bearer {kubeconfig.token}"
        self._extensions = {"sni_hostname": kubeconfig.tls_server_name} if kubeconfig.tls_server_name else {}
        self._server = kubeconfig.server
        self.certificate_ends_at: datetime | None = None
        """When the server's certificate ends; known once it has answered."""
        self._http = httpx.AsyncClient(
            base_url=kubeconfig.server,
            headers=headers,
            transport=transport_to(
                kubeconfig.server, tls_context(kubeconfig), allow_local=allow_local, resolver=resolver
            ),
            timeout=httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def read(self, path: str) -> Json:
        """GET any path that answers with JSON, such as /version or /apis."""
        return await self._json(_Call("GET", path, "get", path, {}))

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        """One object. Raises NotFound."""
        return await self._json(_Call("GET", resource.path(namespace=namespace, name=name), "get", str(resource), {}))

    async def list_pages(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE,
    ) -> AsyncGenerator[Json, None]:
        """Each page as the server gives it. Raises Gone when the list took longer than the server keeps its version."""
        params = _selected(label_selector, field_selector) | {"limit": str(limit)}
        path = resource.path(namespace=namespace)
        while True:
            page = await self._json(_Call("GET", path, "list", str(resource), params))
            yield page
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return
            params = params | {"continue": following}

    async def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: int = 300,
    ) -> AsyncGenerator[Json, None]:
        """Events `{type, object}` after this version, bookmarks included, until the server ends the stream.

        The server does so after `timeout_s`; the caller goes on from the last version seen. Raises Gone when that is
        too old, and Unreachable when the connection breaks.
        """
        params = _selected(label_selector, field_selector) | {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_s),
        }
        call = _Call("GET", resource.path(namespace=namespace), "watch", str(resource), params)
        async for line in self._lines(call, silence_s=timeout_s + 10.0):
            event = _decoded(line)
            if event.get("type") == "ERROR":
                status = event.get("object") or {}
                raise self._refusal(call, status.get("code") or 500, status)
            yield event

    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        """A new object. Raises Conflict when it exists. Not repeated after a broken connection."""
        path, params = resource.path(namespace=namespace), {"fieldManager": FIELD_MANAGER}
        call = _Call("POST", path, "create", str(resource), params, orjson.dumps(body), repeatable=False)
        return await self._json(call)

    async def apply(self, resource: Resource, body: Json, *, namespace: str | None = None, force: bool = False) -> Json:
        """Server-side apply: makes or changes the object to have these fields. Safe to repeat.

        `force` takes fields over from other managers; without it their fields raise Conflict.
        """
        path = resource.path(namespace=namespace, name=body["metadata"]["name"])
        params = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        media = "application/apply-patch+yaml"
        return await self._json(_Call("PATCH", path, "patch", str(resource), params, orjson.dumps(body), media))

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Json,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> Json:
        """A JSON merge patch (RFC 7386). Raises NotFound."""
        path = resource.path(namespace=namespace, name=name, subresource=subresource)
        media, params = "application/merge-patch+json", {"fieldManager": FIELD_MANAGER}
        return await self._json(_Call("PATCH", path, "patch", str(resource), params, orjson.dumps(body), media))

    async def delete(
        self, resource: Resource, name: str, *, namespace: str | None = None, propagation: str = "Background"
    ) -> bool:
        """Ask for its removal, which may take longer than this call. False when it is absent already."""
        path, body = resource.path(namespace=namespace, name=name), {"propagationPolicy": propagation}
        try:
            await self._json(_Call("DELETE", path, "delete", str(resource), {}, orjson.dumps(body)))
        except NotFound:
            return False
        return True

    async def may(
        self, verb: str, resource: Resource, *, namespace: str | None = None, subresource: str = "", name: str = ""
    ) -> bool:
        """Whether our credential may do this (SelfSubjectAccessReview)."""
        asked = {
            "verb": verb,
            "group": resource.group,
            "resource": resource.plural,
            "subresource": subresource,
            "namespace": namespace or "",
            "name": name,
        }
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        content = orjson.dumps({**body, "spec": {"resourceAttributes": asked}})
        answer = await self._json(_Call("POST", ACCESS_REVIEWS.path(), "create", str(ACCESS_REVIEWS), {}, content))
        return (answer.get("status") or {}).get("allowed") is True

    async def ask_service(
        self,
        namespace: str,
        service: str,
        path: str,
        *,
        port: str | int,
        scheme: str = "http",
        method: str = "GET",
        params: Mapping[str, str] | None = None,
        body: Json | None = None,
    ) -> bytes:
        """Reach a service's pod through the API server's proxy. The body as it came."""
        prefix = f"{scheme}:" if scheme == "https" else ""
        base = SERVICES.path(namespace=namespace, name=f"{prefix}{service}:{port}", subresource="proxy")
        target = "/".join(segment(part) for part in path.strip("/").split("/")) if path.strip("/") else ""
        content = None if body is None else orjson.dumps(body)
        verb = {"GET": "get", "POST": "create"}[method]
        call = _Call(
            method, f"{base}/{target}", verb, "services/proxy", params or {}, content, repeatable=method == "GET"
        )
        return await self._answer(call)

    async def log_lines(
        self,
        namespace: str,
        pod: str,
        *,
        container: str | None = None,
        follow: bool = False,
        previous: bool = False,
        tail_lines: int | None = None,
        since_s: int | None = None,
        since_time: str | None = None,
        timestamps: bool = False,
        silence_s: float | None = 3600.0,
    ) -> AsyncGenerator[str, None]:
        """A container's log, line by line; with `follow` until the container ends or nothing comes for `silence_s`.

        `since_time` is RFC 3339, and takes the place of `since_s`.
        Raises Rejected while the container is waiting to start. Close the iterator to stop following.
        """
        asked = {
            "container": container,
            "follow": "true" if follow else None,
            "previous": "true" if previous else None,
            "tailLines": tail_lines,
            "sinceSeconds": since_s,
            "sinceTime": since_time,
            "timestamps": "true" if timestamps else None,
        }
        params = {name: str(value) for name, value in asked.items() if value is not None}
        path = PODS.path(namespace=namespace, name=pod, subresource="log")
        async for line in self._lines(_Call("GET", path, "get", "pods/log", params), silence_s=silence_s):
            yield line.decode("utf-8", "replace")

    async def _json(self, call: _Call) -> Json:
        return _decoded(await self._answer(call))

    async def _answer(self, call: _Call) -> bytes:
        """The body of a good answer. Waits and repeats where that is safe, within the time limit."""
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

    async def _once(self, call: _Call, *, left_s: float) -> bytes:
        try:
            # The HTTP library's own limits come first: cancelled from outside in a TLS handshake (httpcore 1.0) it
            # leaves the socket to the garbage collector. This one is for servers that dribble.
            async with asyncio.timeout(left_s + _MARGIN_S), self._opened(call, silence_s=left_s) as response:
                return await self._body(response)
        except TimeoutError:
            raise Unreachable(f"{self._server} took longer than {self._timeout_s:g} s to answer.") from None

    async def _lines(self, call: _Call, *, silence_s: float | None) -> AsyncIterator[bytes]:
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

    @asynccontextmanager
    async def _opened(self, call: _Call, *, silence_s: float | None) -> AsyncIterator[httpx.Response]:
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
                    error = self._refusal(call, response.status_code, await self._status(response))
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
            return _decoded(await self._body(response))
        except ServerFailed:
            return {}

    def _refusal(self, call: _Call, code: int, status: Json) -> KubeError:
        message = status.get("message")
        said = self._redactor.mask(message)[:_MESSAGE] if isinstance(message, str) else f"status {code}"
        return refusal(code, verb=call.verb, resource=call.what, said=said, reason=str(status.get("reason") or ""))

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


def tls_context(kubeconfig: Kubeconfig) -> ssl.SSLContext:
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


def _worth_repeating(error: KubeError, call: _Call) -> bool:
    if isinstance(error, TooManyRequests):
        return True
    if isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout):
        return True  # nothing was sent
    return call.repeatable and (isinstance(error, Unreachable) or error.status in _BUSY)


def _retry_after(response: httpx.Response) -> float:
    seconds = response.headers.get("retry-after", "")
    return float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0


def _selected(label_selector: str, field_selector: str) -> dict[str, str]:
    chosen = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: text for name, text in chosen.items() if text}


def _decoded(body: bytes) -> Json:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise ServerFailed("The cluster's answer is not a JSON object; is this the address of a Kubernetes API server?")
    return content
