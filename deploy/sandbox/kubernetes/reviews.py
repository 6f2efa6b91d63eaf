"""Questions that are answered and not stored: access reviews, token reviews, who am I."""

from collections.abc import Callable
from typing import Any

from sandbox.kubernetes.errors import BadRequest
from sandbox.kubernetes.http import Request, Response, json_response
from sandbox.kubernetes.rbac import Attributes, Rbac
from sandbox.kubernetes.routing import Target
from sandbox.kubernetes.tokens import Tokens, User

Obj = dict[str, Any]


class Reviews:
    """Answers creates in authorization.k8s.io and authentication.k8s.io."""

    def __init__(self, rbac: Rbac, tokens: Tokens) -> None:
        self._rbac = rbac
        self._tokens = tokens
        self._answers: dict[str, Callable[[User, Obj, str], Obj]] = {
            "SelfSubjectAccessReview": lambda user, spec, _: self._access(user, spec),
            "SubjectAccessReview": lambda _, spec, __: self._access(_subject(spec), spec),
            "LocalSubjectAccessReview": lambda _, spec, __: self._access(_subject(spec), spec),
            "SelfSubjectRulesReview": lambda user, spec, _: self._rules(user, spec),
            "SelfSubjectReview": lambda user, _, __: {"userInfo": _described(user)},
            "TokenReview": lambda _, spec, __: self._tokens.review(spec.get("token", "")),
        }

    def answers(self, kind: str) -> bool:
        """Whether this kind is a review: asked and answered, never stored."""
        return kind in self._answers

    async def handle(self, request: Request, target: Target) -> Response:
        """The review with its answer as the status."""
        body = await request.object()
        spec = body.get("spec") or {}
        status = self._answers[target.kind.kind](request.user, spec, target.namespace)
        metadata = {"creationTimestamp": None, **(body.get("metadata") or {})}
        shown = {"kind": target.kind.kind, "apiVersion": target.api_version, "metadata": metadata}
        if spec or target.kind.kind != "SelfSubjectReview":
            shown["spec"] = spec
        return json_response({**shown, "status": status}, status=201)

    def _access(self, user: User, spec: Obj) -> Obj:
        resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if resource is None and path is None:
            raise BadRequest("exactly one of nonResourceAttributes or resourceAttributes must be specified")
        if resource is not None:
            fields = ("verb", "group", "resource", "subresource", "namespace", "name")
            wanted = Attributes(**{field: resource.get(field, "") for field in fields})
        else:
            assert path is not None
            wanted = Attributes(path.get("verb", ""), path=path.get("path", ""))
        return {"allowed": True} if self._rbac.is_allowed(user, wanted) else {"allowed": False}

    def _rules(self, user: User, spec: Obj) -> Obj:
        rules = list(self._rbac.rules_of(user, spec.get("namespace", "")))
        return {
            "incomplete": False,
            "resourceRules": [rule for rule in rules if "resources" in rule],
            "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
        }


def _subject(spec: Obj) -> User:
    return User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""))


def _described(user: User) -> Obj:
    described: Obj = {"username": user.name, "groups": list(user.groups)}
    return {**described, "uid": user.uid} if user.uid else described
