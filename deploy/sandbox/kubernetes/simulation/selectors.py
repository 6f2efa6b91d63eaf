"""Label selectors, tolerations and node selector terms as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Labels = Mapping[str, str]


def matches(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    """Whether a LabelSelector holds. None selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(rule, labels) for rule in selector.get("matchExpressions") or [])


def subset(wanted: Labels | None, labels: Labels) -> bool:
    """Whether every wanted label is there with that value."""
    return all(labels.get(key) == value for key, value in (wanted or {}).items())


def _holds(rule: Mapping[str, Any], labels: Labels) -> bool:  # noqa: PLR0911 -- one return per operator
    value, values = labels.get(rule["key"]), rule.get("values") or []
    match rule["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and value.isdigit() and int(value) > int(values[0])
        case "Lt":
            return value is not None and value.isdigit() and int(value) < int(values[0])
        case _:
            return False


def node_term_matches(term: Mapping[str, Any], name: str, labels: Labels) -> bool:
    """One nodeSelectorTerm; a term without any rule matches nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    return all(_holds(rule, labels) for rule in expressions) and all(
        _holds(rule, {"metadata.name": name}) for rule in fields
    )


def node_selected(spec: Mapping[str, Any], name: str, labels: Labels) -> bool:
    """NodeSelector and required node affinity of a pod spec."""
    if not subset(spec.get("nodeSelector"), labels):
        return False
    required = required_node_affinity(spec)
    if required is None:
        return True
    return any(node_term_matches(term, name, labels) for term in required.get("nodeSelectorTerms") or [])


def required_node_affinity(spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The hard part of a pod's node affinity."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required: Mapping[str, Any] | None = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required


def pinned_node(spec: Mapping[str, Any]) -> str | None:
    """The node that a DaemonSet's pod names by field, None for other pods."""
    terms = (required_node_affinity(spec) or {}).get("nodeSelectorTerms") or []
    if len(terms) != 1:
        return None
    for rule in terms[0].get("matchFields") or []:
        if rule["key"] == "metadata.name" and rule["operator"] == "In" and len(rule["values"]) == 1:
            return str(rule["values"][0])
    return None


def tolerates(tolerations: Iterable[Mapping[str, Any]] | None, taint: Mapping[str, Any]) -> bool:
    """Whether any toleration covers a taint."""
    for toleration in tolerations or []:
        if toleration.get("effect") and toleration["effect"] != taint["effect"]:
            continue
        key, operator = toleration.get("key"), toleration.get("operator") or "Equal"
        if not key and operator == "Exists":
            return True
        if key != taint["key"]:
            continue
        if operator == "Exists" or (toleration.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def untolerated(
    taints: Iterable[Mapping[str, Any]], spec: Mapping[str, Any], effects: tuple[str, ...] = ("NoSchedule", "NoExecute")
) -> list[Mapping[str, Any]]:
    """The taints with one of the effects that a pod spec does not tolerate."""
    return [
        taint for taint in taints if taint["effect"] in effects and not tolerates(spec.get("tolerations"), taint)
    ]  # fmt: skip
