"""From a URL to what it addresses: the kind, the object, the subresource, and the verb that RBAC knows it by."""

from dataclasses import dataclass

from sandbox.kubernetes.errors import UnknownPath
from sandbox.kubernetes.http import Request
from sandbox.kubernetes.rbac import Attributes
from sandbox.kubernetes.resources import Kind, Resources, group_version

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a resource URL addresses; `rest` is what follows `proxy`."""

    kind: Kind
    group: str
    version: str
    namespace: str
    name: str
    subresource: str
    rest: str
    verb: str

    @property
    def api_version(self) -> str:
        """As the URL has it."""
        return group_version(self.group, self.version)

    @property
    def attributes(self) -> Attributes:
        """What access is asked for."""
        return Attributes(self.verb, self.group, self.kind.plural, self.subresource, self.namespace, self.name)


def resolve(request: Request, resources: Resources) -> Target:
    """Read a path below /api or /apis. Raises UnknownPath when nothing is served there."""
    parts = [part for part in request.path.split("/") if part]
    if parts[0] == "api":
        group, version, parts = "", parts[1] if len(parts) > 1 else "", parts[2:]
    else:
        group, version, parts = "/".join(parts[1:2]), "/".join(parts[2:3]), parts[3:]
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces" and parts[2] not in {"status", "finalize"}:
        namespace, parts = parts[1], parts[2:]
    if not parts:
        raise UnknownPath
    kind = resources.at_path(group, version, parts[0])
    if kind is None and (group, parts[0]) == ("", "bindings"):
        kind, parts = resources.get("Pod"), ["pods", "", "binding"]
    if kind is None or (namespace and not kind.namespaced):
        raise UnknownPath
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    if subresource and subresource not in kind.subresources:
        raise UnknownPath
    rest = "/".join(parts[3:])
    if request.path.endswith("/") and rest:
        rest += "/"
    if kind.key == "Namespace" and name:
        namespace = name
    return Target(kind, group, version, namespace, name, subresource, rest, _verb(request, name))


def _verb(request: Request, name: str) -> str:
    if request.scope["type"] == "websocket":
        return "create"
    if request.method in {"GET", "HEAD"} and not name:
        return "watch" if request.flag("watch") else "list"
    if request.method == "DELETE" and not name:
        return "deletecollection"
    return _VERBS.get(request.method, request.method.lower())
