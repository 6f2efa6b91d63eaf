"""Asks one cluster: raw JSON over HTTPS, typed errors, a time limit on every call.

Objects stay dictionaries. The typed models of the `kubernetes` package cost about five times the CPU and memory on
long lists, raise on objects that lack a required field, and its asyncio part has no watch; so this is httpx and orjson.
"""

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Final, Self

import orjson

from budcluster.kube.connection import Call, Connection, Json, decoded
from budcluster.kube.errors import NotFound
from budcluster.kube.kubeconfig import Kubeconfig
from budcluster.kube.network import Resolve, resolve
from budcluster.kube.resources import ACCESS_REVIEWS, PODS, SERVICES, Resource, segment

_FIELD_MANAGER: Final = "budcluster"
_PAGE: Final = 500
"""Objects of one list page: what kubectl asks for."""


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
        self._connection = Connection(kubeconfig, allow_local=allow_local, timeout_s=timeout_s, resolver=resolver)

    @property
    def certificate_ends_at(self) -> datetime | None:
        """When the server's certificate ends; known once it has answered."""
        return self._connection.certificate_ends_at

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def read(self, path: str) -> Json:
        """GET any path that answers with JSON, such as /version or /apis."""
        return await self._connection.json(Call("GET", path, "get", path, {}))

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        """One object. Raises NotFound."""
        return await self._connection.json(
            Call("GET", resource.path(namespace=namespace, name=name), "get", str(resource), {})
        )

    async def list_pages(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = _PAGE,
    ) -> AsyncGenerator[Json, None]:
        """Each page as the server gives it. Raises Gone when the list took longer than the server keeps its version."""
        params = _selected(label_selector, field_selector) | {"limit": str(limit)}
        path = resource.path(namespace=namespace)
        while True:
            page = await self._connection.json(Call("GET", path, "list", str(resource), params))
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
        call = Call("GET", resource.path(namespace=namespace), "watch", str(resource), params)
        async for line in self._connection.lines(call, silence_s=timeout_s + 10.0):
            event = decoded(line)
            if event.get("type") == "ERROR":
                status = event.get("object") or {}
                raise self._connection.refusal(call, status.get("code") or 500, status)
            yield event

    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        """A new object. Raises Conflict when it exists. Not repeated after a broken connection."""
        path, params = resource.path(namespace=namespace), {"fieldManager": _FIELD_MANAGER}
        call = Call("POST", path, "create", str(resource), params, orjson.dumps(body), repeatable=False)
        return await self._connection.json(call)

    async def apply(self, resource: Resource, body: Json, *, namespace: str | None = None, force: bool = False) -> Json:
        """Server-side apply: makes or changes the object to have these fields. Safe to repeat.

        `force` takes fields over from other managers; without it their fields raise Conflict.
        """
        path = resource.path(namespace=namespace, name=body["metadata"]["name"])
        params = {"fieldManager": _FIELD_MANAGER, "force": str(force).lower()}
        media = "application/apply-patch+yaml"
        return await self._connection.json(
            Call("PATCH", path, "patch", str(resource), params, orjson.dumps(body), media)
        )

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
        media, params = "application/merge-patch+json", {"fieldManager": _FIELD_MANAGER}
        return await self._connection.json(
            Call("PATCH", path, "patch", str(resource), params, orjson.dumps(body), media)
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Ask for its removal, which may take longer than this call. False when it is absent already.

        With `uid` no other object of that name is removed: raises Conflict then.
        """
        path = resource.path(namespace=namespace, name=name)
        body: dict[str, object] = {"propagationPolicy": propagation}
        if uid is not None:
            body |= {"preconditions": {"uid": uid}}
        try:
            await self._connection.json(Call("DELETE", path, "delete", str(resource), {}, orjson.dumps(body)))
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
        answer = await self._connection.json(
            Call("POST", ACCESS_REVIEWS.path(), "create", str(ACCESS_REVIEWS), {}, content)
        )
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
        call = Call(
            method, f"{base}/{target}", verb, "services/proxy", params or {}, content, repeatable=method == "GET"
        )
        return await self._connection.answer(call)

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
        async for line in self._connection.lines(Call("GET", path, "get", "pods/log", params), silence_s=silence_s):
            yield line.decode("utf-8", "replace")


def _selected(label_selector: str, field_selector: str) -> dict[str, str]:
    chosen = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: text for name, text in chosen.items() if text}
