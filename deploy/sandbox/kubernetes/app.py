"""The API server as an ASGI application: from a request over faults, authentication and RBAC to its answer."""

from collections import deque
from collections.abc import Callable
from typing import Any

from sandbox.kubernetes import discovery
from sandbox.kubernetes.admin import Admin
from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.crud import Crud
from sandbox.kubernetes.documents import Documents, view_of
from sandbox.kubernetes.errors import ApiError, InternalError, MethodNotAllowed, NotFound, UnknownPath
from sandbox.kubernetes.exec import refuse, serve_exec
from sandbox.kubernetes.faults import ConnectionDropped
from sandbox.kubernetes.http import (
    Receive,
    Request,
    Response,
    Scope,
    Send,
    error_response,
    json_response,
    text_response,
)
from sandbox.kubernetes.rbac import Attributes
from sandbox.kubernetes.reviews import Reviews
from sandbox.kubernetes.routing import Target, resolve
from sandbox.kubernetes.selectors import LabelSelector
from sandbox.kubernetes.subresources import Subresources
from sandbox.kubernetes.tokens import user_named
from sandbox.kubernetes.watch import Watches

Obj = dict[str, Any]
METRICS = "metrics.k8s.io"


class ApiServer:
    """Serves one cluster. `abort` ends the connection of a request without an answer; a real server sets it.

    `warned` keeps the last warnings that clients were given.
    """

    def __init__(self, cluster: Cluster, *, bookmark_s: float = 60.0) -> None:
        self.cluster = cluster
        self.abort: Callable[[Scope], None] | None = None
        documents = Documents(cluster.store)
        self.watches = Watches(cluster.store, documents, bookmark_s=bookmark_s)
        self._documents = documents
        self._crud = Crud(cluster.store, documents, self.watches, cluster.rbac, cluster.admission)
        self._subresources = Subresources(cluster.store, self._crud, cluster.tokens, cluster.kubelets)
        self._reviews = Reviews(cluster.rbac, cluster.tokens)
        self.admin = Admin(cluster, self.watches)
        self.warned: deque[str] = deque(maxlen=1000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            if scope["type"] == "websocket":
                await self._serve_socket(request, receive, send)
            else:
                await self._serve(request, send)
        except ConnectionDropped:
            if self.abort is None:
                raise
            self.abort(scope)

    async def _serve(self, request: Request, send: Send) -> None:
        try:
            response = await self._answer(request)
        except ApiError as error:
            response = error_response(error)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            # A body of the wrong shape; kube-apiserver would have refused it while decoding.
            response = error_response(InternalError(f"Internal error occurred: {type(error).__name__}: {error}"))
        self.warned += request.warnings
        await response.send(send, warnings=request.warnings)

    async def _answer(self, request: Request) -> Response:
        if request.path.startswith("/sandbox/"):
            return await self.admin.handle(request)
        target = self._target(request)
        if target is None:
            wanted = Attributes(request.method.lower().replace("head", "get"), path=request.path)
        else:
            wanted = target.attributes
        await self._admit(request, wanted)
        if target is None:
            return self._plain(request)
        return await self._resource(request, target)

    async def _admit(self, request: Request, wanted: Attributes) -> None:
        """Authenticate, let faults strike, authorise."""
        tokens = self.cluster.tokens
        request.user = tokens.authenticate(request.headers.get("authorization", ""))
        if other := request.headers.get("impersonate-user"):
            self.cluster.rbac.check(request.user, Attributes("impersonate", resource="users", name=other))
            request.user = user_named(other)
        await self.cluster.faults.strike(wanted, request.user)
        self.cluster.rbac.check(request.user, wanted)

    def _target(self, request: Request) -> Target | None:
        parts = [part for part in request.path.split("/") if part]
        is_resource = (parts[:1] == ["api"] and len(parts) > 2) or (parts[:1] == ["apis"] and len(parts) > 3)
        return resolve(request, self.cluster.store.resources) if is_resource else None

    async def _resource(self, request: Request, target: Target) -> Response:
        if target.group == METRICS:
            return self._metrics(request, target)
        if target.subresource:
            return await self._subresources.handle(request, target)
        if self._reviews.answers(target.kind.kind) and request.method == "POST":
            return await self._reviews.handle(request, target)
        if target.verb not in target.kind.verbs:
            raise MethodNotAllowed
        return await self._crud.handle(request, target)

    def _metrics(self, request: Request, target: Target) -> Response:
        kubelets = self.cluster.kubelets
        rows = kubelets.metrics_nodes() if target.kind.kind == "NodeMetrics" else kubelets.metrics_pods()
        rows = [
            row for row in rows if not target.kind.namespaced or target.namespace in {"", row["metadata"]["namespace"]}
        ]
        if target.name:
            found = next((row for row in rows if row["metadata"]["name"] == target.name), None)
            if found is None:
                raise NotFound(target.kind.plural, METRICS, target.name)
            return json_response(found)
        labels = LabelSelector.parse(request.query.get("labelSelector", ""))
        rows = [row for row in rows if labels.matches(row["metadata"].get("labels"))]
        if view_of(request):
            return json_response(self._documents.many(rows, target, request, {}))
        kind = f"{target.kind.kind}List"
        return json_response({"kind": kind, "apiVersion": target.api_version, "metadata": {}, "items": rows})

    def _plain(self, request: Request) -> Response:
        """What is not a resource: health, version, discovery, OpenAPI."""
        path, resources = request.path.rstrip("/") or "/", self.cluster.store.resources
        parts = path.strip("/").split("/")
        if parts[0] in {"healthz", "livez", "readyz"}:
            return text_response("ok")
        document: Obj | None = None
        if path == "/version":
            document = discovery.version_info(self.cluster.version)
        elif path == "/":
            document = {
                "paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]
            }
        elif parts[0] == "api":
            document = _api(parts, resources, self.cluster)
        elif parts[0] == "apis":
            document = _apis(parts, resources)
        elif parts[0] == "openapi":
            return self._openapi(request, parts)
        if document is None:
            raise UnknownPath
        return json_response(document)

    def _openapi(self, request: Request, parts: list[str]) -> Response:
        resources = self.cluster.store.resources
        if parts[1:] == ["v2"]:
            if "protobuf" in request.headers.get("accept", ""):
                return Response(
                    200, b"", {"content-type": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
                )
            return json_response(discovery.openapi_v2(self.cluster.version))
        if parts[1:] == ["v3"]:
            return json_response(discovery.openapi_index(resources))
        group, version = (
            ("", parts[3]) if parts[2:3] == ["api"] and len(parts) == 4 else ("/".join(parts[3:-1]), parts[-1])
        )
        document = discovery.openapi_document(resources, group, version)
        if document is None:
            raise UnknownPath
        return json_response(document)

    async def _serve_socket(self, request: Request, receive: Receive, send: Send) -> None:
        try:
            target = self._target(request)
            if target is None or target.subresource != "exec":
                raise UnknownPath
            await self._admit(request, target.attributes)
            cluster = self.cluster
            await serve_exec(request, target, receive, send, store=cluster.store, kubelets=cluster.kubelets)
        except ApiError as error:
            can_answer = "websocket.http.response" in (request.scope.get("extensions") or {})
            await refuse(error, receive, send, can_answer=can_answer)


def _api(parts: list[str], resources: Any, cluster: Cluster) -> Obj | None:
    if len(parts) == 1:
        return discovery.core_versions(cluster.address)
    return discovery.resource_list(resources, "", parts[1])


def _apis(parts: list[str], resources: Any) -> Obj | None:
    if len(parts) == 1:
        return discovery.group_list(resources)
    if len(parts) == 2:
        return discovery.group(resources, parts[1])
    return discovery.resource_list(resources, parts[1], parts[2])
