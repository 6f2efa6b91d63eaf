"""What hangs below an object: scale, log, eviction, binding, token, approval, proxy."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from sandbox.kubernetes import patch
from sandbox.kubernetes.clock import parse_timestamp, timestamp
from sandbox.kubernetes.contracts import Kubelets
from sandbox.kubernetes.crud import Crud
from sandbox.kubernetes.disruption import check_budgets
from sandbox.kubernetes.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from sandbox.kubernetes.http import Request, Response, json_response
from sandbox.kubernetes.routing import Target
from sandbox.kubernetes.store import Store
from sandbox.kubernetes.tables import json_path
from sandbox.kubernetes.tokens import Tokens

Obj = dict[str, Any]

# How long an answer waits for the first line of a followed log before it sends the headers alone.
_FIRST_LINE_S = 0.05
_CREATED = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
_HOP_HEADERS = frozenset({"authorization", "host", "content-length", "connection", "transfer-encoding"})


class Subresources:
    """Answers requests whose URL names a subresource."""

    def __init__(self, store: Store, crud: Crud, tokens: Tokens, kubelets: Kubelets) -> None:
        self._store = store
        self._crud = crud
        self._tokens = tokens
        self.kubelets = kubelets

    async def handle(self, request: Request, target: Target) -> Response:
        """Answer a request for a part of an object, such as its status, scale or log."""
        name = target.subresource
        if name in {"status", "finalize", "approval", "ephemeralcontainers", "resize"}:
            return await self._crud.handle(request, target)
        answers = {"scale": self._scale, "proxy": self._proxy}
        if request.method == "GET":
            answers["log"] = self._log
        elif request.method == "POST":
            answers |= {"token": self._token, "eviction": self._evict, "binding": self._bind}
        if name in answers:
            return await answers[name](request, target)
        if name in {"exec", "attach", "portforward"}:
            raise BadRequest("Upgrade request required")
        raise MethodNotAllowed

    async def _scale(self, request: Request, target: Target) -> Response:
        place = (target.kind, target.namespace, target.name)
        obj = self._store.get(*place)
        replicas_at, status_at, selector_at = _scale_paths(target)
        scale = _scale_of(obj, replicas_at, status_at, selector_at)
        if request.method == "GET":
            return json_response(scale)
        body = await request.document()
        if request.method == "PATCH":
            is_list = request.content_type == "application/json-patch+json"
            body = patch.json_patch(scale, body) if is_list else patch.merge_patch(scale, body)
        wanted = (body.get("spec") or {}).get("replicas", 0)

        def change(new: Obj) -> None:
            given = (body.get("metadata") or {}).get("resourceVersion")
            new["metadata"]["resourceVersion"] = given or new["metadata"]["resourceVersion"]
            _set_path(new, replicas_at, wanted)

        if request.is_dry_run:
            return json_response({**scale, "spec": {"replicas": wanted}})
        written = self._store.update(*place, change) or obj
        return json_response(_scale_of(written, replicas_at, status_at, selector_at))

    async def _log(self, request: Request, target: Target) -> Response:
        pod = self._store.get("Pod", target.namespace, target.name)
        since = request.query.get("sinceTime")
        lines = self.kubelets.logs(
            pod,
            container=container_of(pod, request.query.get("container")),
            previous=request.flag("previous"),
            follow=request.flag("follow"),
            tail_lines=request.number("tailLines"),
            since_seconds=request.number("sinceSeconds"),
            since_time=parse_timestamp(since) if since else None,
            timestamps=request.flag("timestamps"),
            limit_bytes=request.number("limitBytes"),
        )
        headers = {"content-type": "text/plain"}
        if not request.flag("follow"):
            return Response(200, b"".join([chunk async for chunk in lines]), headers)
        first: asyncio.Future[bytes | None] = asyncio.ensure_future(_next(lines))
        done, _ = await asyncio.wait({first}, timeout=_FIRST_LINE_S)
        if done and isinstance(error := first.exception(), ApiError):
            raise error
        return Response(200, _follow(first, lines, request), headers)

    async def _token(self, request: Request, target: Target) -> Response:
        account = self._store.get("ServiceAccount", target.namespace, target.name)
        body = await request.object()
        return json_response(self._tokens.request(account, body.get("spec") or {}), status=201)

    async def _evict(self, request: Request, target: Target) -> Response:
        pod = self._store.get("Pod", target.namespace, target.name)
        check_budgets(self._store, pod)
        options = (await request.object()).get("deleteOptions") or {}
        grace = options.get("gracePeriodSeconds")
        is_dry = request.is_dry_run or options.get("dryRun") == ["All"]
        self._store.delete("Pod", target.namespace, target.name, grace_seconds=grace, dry_run=is_dry)
        return json_response(_CREATED, status=201)

    async def _bind(self, request: Request, target: Target) -> Response:
        body = await request.object()
        name = target.name or body["metadata"]["name"]
        node = (body.get("target") or {}).get("name", "")
        if self._store.update("Pod", target.namespace, name, lambda pod: pod["spec"].update(nodeName=node)) is None:
            raise NotFound("pods", "", name)
        now = timestamp(self._store.clock.now())
        condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}

        def mark(pod: Obj) -> None:
            others = [c for c in pod["status"].get("conditions") or () if c["type"] != "PodScheduled"]
            pod["status"]["conditions"] = [*others, condition]

        self._store.update("Pod", target.namespace, name, mark, subresource="status")
        return json_response(_CREATED, status=201)

    async def _proxy(self, request: Request, target: Target) -> Response:
        parts = target.name.split(":")
        if len(parts) == 3:
            parts = parts[1:]
        name, port = parts[0], parts[1] if len(parts) > 1 else ""
        namespace = target.namespace if target.kind.namespaced else None
        obj = self._store.get(target.kind, namespace, name)
        headers = {key: value for key, value in request.headers.items() if key not in _HOP_HEADERS}
        answer = await self.kubelets.proxy(
            target.namespace,
            obj,
            port,
            request.method,
            f"/{target.rest}",
            request.query_string,
            headers,
            await request.body(),
        )
        return Response(answer.status, answer.body, answer.headers)


def container_of(pod: Obj, asked: str | None) -> str:
    """The container a log or exec request means. Raises BadRequest in the words of registry/core/pod/strategy.go."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    main = [c["name"] for c in spec["containers"]]
    init = [c["name"] for c in spec.get("initContainers") or ()]
    if not asked:
        if len(main) == 1 and not init:
            return str(main[0])
        if len(main) == 1:
            choice = f"choose one of: [{' '.join(main)}] or one of the init containers: [{' '.join(init)}]"
        else:
            choice = f"choose one of: [{' '.join(main)}]"
            choice += f" or one of the init containers: [{' '.join(init)}]" if init else ""
        raise BadRequest(f"a container name must be specified for pod {name}, {choice}")
    if asked not in {*main, *init}:
        raise BadRequest(f"container {asked} is not valid for pod {name}")
    return asked


async def _follow(
    first: "asyncio.Future[bytes | None]", rest: AsyncIterator[bytes], request: Request
) -> AsyncIterator[bytes]:
    """Pass a followed log on until it ends or the client goes away."""
    gone = asyncio.ensure_future(request.disconnected())
    following: asyncio.Future[bytes | None] = first
    try:
        while True:
            either: set[asyncio.Future[Any]] = {following, gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not following.done():
                return
            chunk = following.result()
            if chunk is None:
                return
            yield chunk
            following = asyncio.ensure_future(_next(rest))
    finally:
        gone.cancel()
        following.cancel()


async def _next(lines: AsyncIterator[bytes]) -> bytes | None:
    return await anext(lines, None)


def _scale_paths(target: Target) -> tuple[str, str, str]:
    if not target.kind.is_custom:
        return ".spec.replicas", ".status.replicas", ""
    for version in (target.kind.definition or {}).get("spec", {}).get("versions", ()):
        scale = (version.get("subresources") or {}).get("scale")
        if version["name"] == target.version and scale:
            return scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath", "")
    return ".spec.replicas", ".status.replicas", ""


def _scale_of(obj: Obj, replicas_at: str, status_at: str, selector_at: str) -> Obj:
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    labels = ((obj.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    selector = json_path(obj, selector_at) if selector_at else ",".join(f"{k}={v}" for k, v in labels.items())
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: meta[field] for field in kept if field in meta},
        "spec": {"replicas": json_path(obj, replicas_at) or 0},
        "status": {"replicas": json_path(obj, status_at) or 0, "selector": selector or ""},
    }


def _set_path(obj: Obj, path: str, value: Any) -> None:
    *parents, last = path.strip(".").split(".")
    for parent in parents:
        obj = obj.setdefault(parent, {})
    obj[last] = value
