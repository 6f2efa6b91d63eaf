"""Label and field selectors: their text form, their object form, and whether an object matches."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sandbox.kubernetes.errors import BadRequest

_SET = re.compile(r"^(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^=!\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^=!\s]*)$")
_COMPARISON = re.compile(r"^(?P<key>[^<>\s]+)\s*(?P<operator>[<>])\s*(?P<value>-?\d+)$")
_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. `operator` is In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it."""
        value = labels.get(self.key)
        if self.operator == "In":
            return value in self.values
        if self.operator == "NotIn":
            return value is None or value not in self.values
        if self.operator == "Exists":
            return value is not None
        if self.operator == "DoesNotExist":
            return value is None
        return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        try:
            left, right = int(value or ""), int(next(iter(self.values)))
        except (ValueError, StopIteration):
            return False
        return left > right if self.operator == "Gt" else left < right


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold; no requirement matches everything."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `a=b,c!=d,e in (f,g),h,!i`. Raises BadRequest with the API server's prefix."""
        terms = [term.strip() for term in _split_outside_parentheses(text)]
        return cls(tuple(_requirement(term) for term in terms if term))

    @classmethod
    def from_object(cls, selector: Mapping[str, Any] | None) -> Self:
        """Read a metav1.LabelSelector (`matchLabels`, `matchExpressions`)."""
        selector = selector or {}
        wanted = [Requirement(k, "In", frozenset((v,))) for k, v in (selector.get("matchLabels") or {}).items()]
        wanted += [
            Requirement(e["key"], e["operator"], frozenset(e.get("values") or ()))
            for e in selector.get("matchExpressions") or ()
        ]
        return cls(tuple(wanted))

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether labels meet all of it."""
        return all(requirement.holds(labels or {}) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Equality and inequality on single fields, as (dotted path, is equal, value)."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `metadata.name=a,status.phase!=Running`. Raises BadRequest."""
        terms: list[tuple[str, bool, str]] = []
        for term in filter(None, (part.strip() for part in text.split(","))):
            path, operator, value = _split_field_term(term)
            terms.append((path, operator != "!=", value))
        return cls(tuple(terms))

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields that are asked about."""
        return tuple(path for path, _, _ in self.terms)

    @property
    def name(self) -> str | None:
        """The one name asked for, when the selector fixes it."""
        return next((v for path, equal, v in self.terms if equal and path == "metadata.name"), None)

    def matches(self, obj: Mapping[str, Any]) -> bool:
        """Whether an object meets all of it."""
        return all((field_text(obj, path) == value) is equal for path, equal, value in self.terms)


def field_text(obj: Mapping[str, Any], path: str) -> str:
    """The field as a selector compares it: absent is empty, booleans are `true` and `false`."""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "false" if path == "spec.unschedulable" else ""
    return str(value)


def _split_field_term(term: str) -> tuple[str, str, str]:
    for operator in ("!=", "==", "="):
        path, found, value = term.partition(operator)
        if found:
            return path.strip(), operator, value.strip()
    raise BadRequest(f"invalid selector: '{term}'; can't understand '{term}'")


def _split_outside_parentheses(text: str) -> list[str]:
    return re.split(r",(?![^(]*\))", text)


def _requirement(term: str) -> Requirement:
    if found := _SET.match(term):
        values = frozenset(v.strip() for v in found["values"].split(","))
        return Requirement(_key(found["key"]), "In" if found["operator"] == "in" else "NotIn", values)
    if found := _EQUALITY.match(term):
        operator = "NotIn" if found["operator"] == "!=" else "In"
        return Requirement(_key(found["key"]), operator, frozenset((found["value"],)))
    if found := _COMPARISON.match(term):
        return Requirement(_key(found["key"]), "Gt" if found["operator"] == ">" else "Lt", frozenset((found["value"],)))
    if term.startswith("!"):
        return Requirement(_key(term[1:].strip()), "DoesNotExist")
    return Requirement(_key(term), "Exists")


def _key(key: str) -> str:
    if not _KEY.match(key):
        raise BadRequest(f'unable to parse requirement: <nil>: Invalid value: "{key}": name part must be a label key')
    return key
