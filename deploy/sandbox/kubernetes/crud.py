"""The verbs on objects and collections: get, list, watch, create, update, patch, delete."""

from collections.abc import Callable
from typing import Any

from sandbox.kubernetes import defaults, events, patch
from sandbox.kubernetes.admission import PodAdmission, check_labels
from sandbox.kubernetes.apply import Manager, apply, note_update
from sandbox.kubernetes.crds import schema_of
from sandbox.kubernetes.decoding import APPLY, decode_body
from sandbox.kubernetes.documents import Documents, Page, page_after
from sandbox.kubernetes.errors import BadRequest, Cause, Conflict, Invalid, NotFound, UnsupportedMediaType
from sandbox.kubernetes.fieldsets import Shape
from sandbox.kubernetes.http import Request, Response, json_response, success
from sandbox.kubernetes.objects import copy_of
from sandbox.kubernetes.rbac import Rbac
from sandbox.kubernetes.resources import EVENTS_GROUP
from sandbox.kubernetes.routing import Target
from sandbox.kubernetes.selectors import FieldSelector, LabelSelector
from sandbox.kubernetes.store import Store
from sandbox.kubernetes.watch import Watches

Obj = dict[str, Any]

_RBAC = "rbac.authorization.k8s.io"
_PATCH_TYPES = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
_STRATEGIC = "application/strategic-merge-patch+json"
_SELECTABLE = {
    "Pod": {"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork"}
    | {"status.phase", "status.podIP", "status.nominatedNodeName"},
    "Node": {"spec.unschedulable"},
    "Namespace": {"status.phase"},
    "Secret": {"type"},
    "ReplicaSet": {"status.replicas"},
    "Job": {"status.successful"},
    "Service": {"spec.clusterIP", "spec.type"},
    "Event": {
        f"involvedObject.{f}"
        for f in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    }
    | {"reason", "reportingComponent", "source", "type"},
}


class Crud:
    """Answers requests on stored objects; authorisation has happened before."""

    def __init__(
        self, store: Store, documents: Documents, watches: Watches, rbac: Rbac, admission: PodAdmission
    ) -> None:
        self._store = store
        self._documents = documents
        self._watches = watches
        self._rbac = rbac
        self._admission = admission

    async def handle(self, request: Request, target: Target) -> Response:
        """Dispatch on the verb; `status`, `finalize` and `approval` are writes to a part of the object."""
        if target.verb == "get":
            return self._get(request, target)
        if target.verb in {"list", "watch"}:
            return self._collection(request, target)
        if target.verb == "create":
            return await self._create(request, target)
        if target.verb == "update":
            return await self._update(request, target)
        if target.verb == "patch":
            return await self._patch(request, target)
        return await self._delete(request, target)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _get(self, request: Request, target: Target) -> Response:
        obj = self._store.get(target.kind, _home(target), target.name)
        return json_response(self._documents.one(obj, target, request))

    def _collection(self, request: Request, target: Target) -> Response:
        labels = LabelSelector.parse(request.query.get("labelSelector", ""))
        fields = _field_selector(request, target)
        if target.verb == "watch":
            stream = self._watches.stream(request, target, labels, fields)
            return Response(200, stream, {"content-type": "application/json"})
        objects = self._store.list(target.kind, _home(target), labels=labels, fields=fields)
        metadata: Obj = {"resourceVersion": str(self._store.resource_version)}
        if token := request.query.get("continue"):
            page = page_after(token, self._store, target.kind.key)
            metadata["resourceVersion"] = str(page.version)
            objects = [obj for obj in objects if _place(obj) > (page.namespace, page.name)]
        limit = request.number("limit")
        if limit and len(objects) > limit:
            last = _place(objects[limit - 1])
            metadata["continue"] = Page(int(metadata["resourceVersion"]), *last).token()
            if not labels.requirements and not fields.terms:
                metadata["remainingItemCount"] = len(objects) - limit
            objects = objects[:limit]
        return json_response(self._documents.many(objects, target, request, metadata))

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _create(self, request: Request, target: Target) -> Response:
        obj = self._incoming(await request.object(), request, target)
        self._check_grant(request, target, obj)
        if "managedFields" not in obj["metadata"]:
            complete = copy_of(obj)
            defaults.complete(target.kind, complete)
            obj = self._noted(None, complete, request, target)
        self._admit(request, target, obj, is_new=True)
        made = self._store.create(obj, dry_run=request.is_dry_run)
        return json_response(self._documents.one(made, target, request), status=201)

    async def _update(self, request: Request, target: Target) -> Response:
        obj = self._incoming(await request.object(), request, target)
        old = self._store.find(target.kind, _home(target), target.name)
        if old is None:
            raise NotFound(target.kind.plural, target.kind.group, target.name)
        if target.kind.key != "Event" and not obj["metadata"].get("resourceVersion") and _must_be_versioned(target):
            cause = Cause(
                "FieldValueInvalid", "Invalid value: 0: must be specified for an update", "metadata.resourceVersion"
            )
            raise Invalid(target.kind.kind, target.kind.group, target.name, [cause])
        self._check_grant(request, target, obj)
        return self._write(request, target, old, obj)

    async def _patch(self, request: Request, target: Target) -> Response:
        kind = request.content_type
        body = await request.document()
        if kind == APPLY:
            return self._apply(request, target, body)
        change = _patcher(kind, target, body)
        old = self._store.get(target.kind, _home(target), target.name)
        shown = self._documents.converted(old, target) if target.group == EVENTS_GROUP else old
        patched = self._incoming(change(shown), request, target)
        if patched["metadata"].get("resourceVersion") == old["metadata"]["resourceVersion"]:
            patched["metadata"] = {k: v for k, v in patched["metadata"].items() if k != "resourceVersion"}
        self._check_grant(request, target, patched)
        return self._write(request, target, old, patched)

    def _write(self, request: Request, target: Target, old: Obj, new: Obj) -> Response:
        if new["metadata"].get("managedFields") == old["metadata"].get("managedFields"):
            complete = copy_of(new)
            defaults.on_update(target.kind, complete, old)
            new = self._noted(old, complete, request, target)
        elif "managedFields" not in new["metadata"]:
            kept = {**new["metadata"], "managedFields": old["metadata"].get("managedFields") or []}
            new = self._noted(old, {**new, "metadata": kept}, request, target)
        elif new["metadata"]["managedFields"] == [{}]:
            new["metadata"]["managedFields"] = []
        self._admit(request, target, new)
        subresource = "status" if target.subresource == "status" else None
        written = self._store.replace(new, subresource=subresource, dry_run=request.is_dry_run)
        return json_response(self._documents.one(written, target, request))

    def _apply(self, request: Request, target: Target, body: Any) -> Response:
        applied = self._incoming(body, request, target) if isinstance(body, dict) else {}
        if not applied:
            raise BadRequest("the body of an apply request must be an object")
        if not request.query.get("fieldManager"):
            cause = Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
            raise Invalid("PatchOptions", "meta.k8s.io", "", [cause])
        if applied["metadata"].get("managedFields"):
            raise BadRequest("metadata.managedFields must be nil")
        live = self._store.find(target.kind, _home(target), target.name)
        given = applied["metadata"].get("resourceVersion")
        if given and (live is None or live["metadata"]["resourceVersion"] != given):
            raise Conflict(target.kind.plural, target.kind.group, target.name)
        self._check_grant(request, target, applied)
        manager = Manager(request.query["fieldManager"], "Apply", target.api_version, _part(target))
        force, now = request.flag("force"), self._store.clock.now()
        merged = apply(live, applied, manager, _shape(target), force=force, now=now)
        self._admit(request, target, merged, is_new=live is None)
        if live is None:
            if target.subresource:
                raise NotFound(target.kind.plural, target.kind.group, target.name)
            made = self._store.create(merged, dry_run=request.is_dry_run)
            return json_response(self._documents.one(made, target, request), status=201)
        subresource = "status" if target.subresource == "status" else None
        written = self._store.replace(merged, subresource=subresource, dry_run=request.is_dry_run)
        return json_response(self._documents.one(written, target, request))

    async def _delete(self, request: Request, target: Target) -> Response:
        options = await request.object() if await request.body() else {}
        propagation = _propagation(request, options, target)
        grace = options.get("gracePeriodSeconds", request.number("gracePeriodSeconds"))
        is_dry = request.is_dry_run or options.get("dryRun") == ["All"]
        if target.verb == "deletecollection":
            return self._delete_all(request, target, propagation, grace, is_dry=is_dry)
        preconditions = options.get("preconditions") or {}
        old = self._store.get(target.kind, _home(target), target.name)
        version = preconditions.get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise Conflict(target.kind.plural, target.kind.group, target.name)
        left = self._store.delete(
            target.kind,
            _home(target),
            target.name,
            propagation=propagation,
            grace_seconds=grace,
            uid=preconditions.get("uid"),
            dry_run=is_dry,
        )
        if left is None and target.kind.key == "Pod":
            left = old
        if left is not None:
            return json_response(self._documents.one(left, target, request))
        return json_response(success(target.kind.plural, target.group, target.name, old["metadata"]["uid"]))

    def _delete_all(
        self, request: Request, target: Target, propagation: str, grace: int | None, *, is_dry: bool
    ) -> Response:
        labels = LabelSelector.parse(request.query.get("labelSelector", ""))
        fields = _field_selector(request, target)
        doomed = self._store.list(target.kind, _home(target), labels=labels, fields=fields)
        for obj in doomed:
            meta = obj["metadata"]
            if self._store.find(target.kind, meta.get("namespace"), meta["name"]) is not None:
                where = meta.get("namespace"), meta["name"]
                self._store.delete(target.kind, *where, propagation=propagation, grace_seconds=grace, dry_run=is_dry)
        metadata = {"resourceVersion": str(self._store.resource_version)}
        return json_response(self._documents.many(doomed, target, request, metadata))

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _incoming(self, obj: Obj, request: Request, target: Target) -> Obj:
        """A body as it will be stored: kind, name and namespace agree with the URL, and its fields are known.

        Raises what decoding.decode_body does, and BadRequest.
        """
        obj = dict(obj)
        kind = target.kind
        if obj.setdefault("kind", kind.kind) != kind.kind:
            raise BadRequest(
                f'{obj["kind"]} in version "{target.version}" cannot be handled as a {kind.kind}: '
                f"converting ({obj.get('apiVersion', '')}).{obj['kind']} to ({target.api_version}).{kind.kind}: "
                "unknown conversion"
            )
        given = obj.setdefault("apiVersion", target.api_version)
        if given not in {target.api_version, kind.api_version}:
            raise BadRequest(
                f"the API version in the data ({given}) does not match the expected API version ({target.api_version})"
            )
        obj = decode_body(obj, request, target)
        if target.group == EVENTS_GROUP:
            obj = events.to_core_v1(obj)
        meta = obj["metadata"] = dict(obj.get("metadata") or {})
        if target.name and meta.setdefault("name", target.name) != target.name:
            raise BadRequest(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({target.name})"
            )
        if kind.namespaced and target.namespace and meta.setdefault("namespace", target.namespace) != target.namespace:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        return obj

    def _noted(self, old: Obj | None, new: Obj, request: Request, target: Target) -> Obj:
        manager = Manager(request.field_manager, "Update", target.api_version, _part(target))
        return note_update(old, new, manager, _shape(target), now=self._store.clock.now())

    def _check_grant(self, request: Request, target: Target, obj: Obj) -> None:
        if target.group == _RBAC:
            self._rbac.check_escalation(request.user, target.kind.kind, obj)

    def _admit(self, request: Request, target: Target, obj: Obj, *, is_new: bool = False) -> None:
        """Raises Forbidden or Invalid for what pod security does not allow; notes what it warns of."""
        if target.subresource:
            return
        if target.kind.key == "Namespace":
            check_labels(obj)
        if target.kind.key == "Pod" and is_new:
            self._admission.check_pod(obj)
        request.warnings += self._admission.warnings(target.kind, obj)


def _patcher(kind: str, target: Target, body: Any) -> Callable[[Obj], Obj]:
    """What a patch of this content type does. Raises UnsupportedMediaType, as for strategic on custom resources."""
    if kind == "application/json-patch+json":
        return lambda old: patch.json_patch(old, body)
    if not isinstance(body, dict):
        raise BadRequest("error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}")
    if kind == "application/merge-patch+json":
        return lambda old: _as_object(patch.merge_patch(old, body))
    if kind == _STRATEGIC and not target.kind.is_custom:
        return lambda old: patch.strategic_merge(old, body)
    accepted = _PATCH_TYPES if target.kind.is_custom else f"{_PATCH_TYPES}, {_STRATEGIC}"
    raise UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    )


def _as_object(document: Any) -> Obj:
    assert isinstance(document, dict)
    return document


def _home(target: Target) -> str | None:
    return target.namespace or None if target.kind.namespaced else None


def _place(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _part(target: Target) -> str:
    return target.subresource if target.subresource == "status" else ""


def _shape(target: Target) -> Shape:
    return Shape(schema_of(target.kind), target.kind.is_custom) if target.kind.is_custom else Shape()


def _must_be_versioned(target: Target) -> bool:
    """Kinds whose update must name a resourceVersion (AllowUnconditionalUpdate is false)."""
    return target.kind.is_custom or target.kind.key in {"CustomResourceDefinition", "Lease", "PodDisruptionBudget"}


def _field_selector(request: Request, target: Target) -> FieldSelector:
    fields = FieldSelector.parse(request.query.get("fieldSelector", ""))
    known = {"metadata.name", "metadata.namespace"} | _SELECTABLE.get(target.kind.key, set())
    for path in fields.paths:
        if path not in known and not _is_declared_selectable(target, path):
            raise BadRequest(
                f'Unable to find "{target.api_version}, Resource={target.kind.plural}" that match label selector '
                f'"{request.query.get("labelSelector", "")}", field selector "{request.query["fieldSelector"]}": '
                f"field label not supported: {path}"
            )
    return fields


def _is_declared_selectable(target: Target, path: str) -> bool:
    versions = ((target.kind.definition or {}).get("spec") or {}).get("versions") or ()
    return any(f".{path}" == f["jsonPath"] for v in versions for f in v.get("selectableFields") or ())


def _propagation(request: Request, options: Obj, target: Target) -> str:
    asked = options.get("propagationPolicy") or request.query.get("propagationPolicy")
    if asked:
        return str(asked)
    orphan = options.get("orphanDependents", request.query.get("orphanDependents") == "true" or None)
    if orphan is None:
        return "Orphan" if target.kind.key == "Job" else "Background"
    return "Orphan" if orphan else "Background"
