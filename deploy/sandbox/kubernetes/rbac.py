"""Who may do what: RBAC rules, their evaluation, and the words of a refusal (authorizer/rbac of 1.36)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes.errors import ApiError, Forbidden
from sandbox.kubernetes.selectors import LabelSelector
from sandbox.kubernetes.store import Store
from sandbox.kubernetes.tokens import User

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request wants. `path` alone for what is not a resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def full_resource(self) -> str:
        """Such as `pods/log`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class PathForbidden(ApiError):
    """A path that is no resource may not be asked for."""

    code, reason = 403, "Forbidden"

    def __init__(self, user: User, wanted: Attributes) -> None:
        super().__init__(f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"')


class Rbac:
    """Evaluates the roles and bindings in the store; system:masters may do everything."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, user: User, wanted: Attributes) -> None:
        """Raises Forbidden in the API server's words."""
        if self.is_allowed(user, wanted):
            return
        if wanted.path:
            raise PathForbidden(user, wanted)
        raise Forbidden(wanted.resource, wanted.group, wanted.name, refusal(user, wanted))

    def is_allowed(self, user: User, wanted: Attributes) -> bool:
        """Whether some role of the user covers it."""
        return user.is_master or any(_covers(rule, wanted) for rule in self.rules_of(user, wanted.namespace))

    def rules_of(self, user: User, namespace: str) -> Iterator[Obj]:
        """Every rule that holds for the user in the namespace (cluster-wide ones alone when it is empty)."""
        if user.is_master:
            yield {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
            yield {"nonResourceURLs": ["*"], "verbs": ["*"]}
        for binding in self._store.list("ClusterRoleBinding"):
            if _names(binding, user, ""):
                yield from self._role_rules(binding["roleRef"], "")
        if namespace:
            for binding in self._store.list("RoleBinding", namespace):
                if _names(binding, user, namespace):
                    yield from self._role_rules(binding["roleRef"], namespace)

    def check_escalation(self, user: User, kind: str, obj: Obj) -> None:
        """Nobody may grant what they do not hold. Raises Forbidden."""
        namespace = obj["metadata"].get("namespace", "")
        if user.is_master or not self._missing(user, kind, obj, namespace):
            return
        plural = f"{kind.lower()}s"
        name = obj["metadata"].get("name", "")
        groups = " ".join(f'"{group}"' for group in user.groups)
        why = (
            f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
            + "\n".join(_described(rule) for rule in self._missing(user, kind, obj, namespace))
        )
        raise Forbidden(plural, "rbac.authorization.k8s.io", name, why)

    def _missing(self, user: User, kind: str, obj: Obj, namespace: str) -> list[Obj]:
        rules = obj.get("rules") or []
        verb, resource, name = "escalate", f"{kind.lower()}s", obj["metadata"].get("name", "")
        if kind.endswith("Binding"):
            rules = list(self._role_rules(obj["roleRef"], namespace))
            resource = f"{obj['roleRef'].get('kind', '').lower()}s"
            verb, name = "bind", obj["roleRef"].get("name", "")
        group = "rbac.authorization.k8s.io"
        if self.is_allowed(user, Attributes(verb, group, resource, namespace=namespace, name=name)):
            return []
        held = list(self.rules_of(user, namespace))
        return [rule for rule in rules if not all(any(_covers(h, a) for h in held) for a in _single(rule))]

    def _role_rules(self, ref: Obj, namespace: str) -> Iterable[Obj]:
        kind = ref.get("kind", "ClusterRole")
        role = self._store.find(kind, namespace if kind == "Role" else None, ref.get("name", ""))
        if role is None:
            return ()
        rules = list(role.get("rules") or ())
        for selector in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ():
            for other in self._store.list("ClusterRole", labels=LabelSelector.from_object(selector)):
                rules += other.get("rules") or ()
        return rules


def refusal(user: User, wanted: Attributes) -> str:
    """`User "x" cannot list resource "pods" in API group "" in the namespace "default"`."""
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    return (
        f'User "{user.name}" cannot {wanted.verb} resource "{wanted.full_resource}" '
        f'in API group "{wanted.group}" {where}'
    )


def _names(binding: Obj, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name")
        if kind == "ServiceAccount":
            home = subject.get("namespace") or namespace
            if user.name == f"system:serviceaccount:{home}:{name}":
                return True
        elif (kind == "User" and name == user.name) or (kind == "Group" and name in user.groups):
            return True
    return False


def _covers(rule: Obj, wanted: Attributes) -> bool:
    if not {"*", wanted.verb}.intersection(rule.get("verbs") or ()):
        return False
    if wanted.path:
        return any(_path_matches(pattern, wanted.path) for pattern in rule.get("nonResourceURLs") or ())
    if not {"*", wanted.group}.intersection(rule.get("apiGroups") or ()):
        return False
    accepted = {"*", wanted.full_resource}
    if wanted.subresource:
        accepted.add(f"*/{wanted.subresource}")
    if not accepted.intersection(rule.get("resources") or ()):
        return False
    names = rule.get("resourceNames") or ()
    return not names or wanted.name in names


def _path_matches(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == path


def _single(rule: Obj) -> Iterator[Attributes]:
    for verb in rule.get("verbs") or ():
        for url in rule.get("nonResourceURLs") or ():
            yield Attributes(verb, path=url)
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                plural, _, subresource = resource.partition("/")
                for name in rule.get("resourceNames") or ("",):
                    yield Attributes(verb, group, plural, subresource, name=name)


def _described(rule: Obj) -> str:
    fields = (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("ResourceNames", "resourceNames"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("Verbs", "verbs"),
    )
    parts = (f"{shown}:[{', '.join(_quoted(rule[key]))}]" for shown, key in fields if rule.get(key))
    return "{" + ", ".join(parts) + "}"


def _quoted(values: Iterable[str]) -> list[str]:
    return [f'"{value}"' for value in values]
