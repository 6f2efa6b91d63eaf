"""Kubernetes quantities as integers: CPU in millicores, everything else in whole units (bytes, devices)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any

Resources = dict[str, int]
"""Resource name to amount; `cpu` in millicores, memory and storage in bytes, devices as counts."""

_GRAMMAR = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?\d+)?", re.ASCII)
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@lru_cache(maxsize=4096)
def exact(text: str) -> Decimal:
    """The value of a quantity. Raises ValueError for text outside the API server's grammar."""
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a Kubernetes quantity")
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * Decimal(1024 ** _BINARY[suffix])
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    return number.scaleb(int(suffix[1:])) if suffix else number


@lru_cache(maxsize=4096)
def _amount(name: str, text: str) -> int:
    value = exact(text)
    if name == "cpu":
        value *= 1000
    return int(value.to_integral_value(rounding=ROUND_CEILING))


def amounts(quantities: Mapping[str, Any] | None) -> Resources:
    """A resource map of the API (`{"cpu": "500m"}`) as integers; fractions are rounded up as the scheduler does."""
    return {name: _amount(name, str(value)) for name, value in (quantities or {}).items()}


def total(parts: Iterable[Mapping[str, int]]) -> Resources:
    """The sum, resource by resource."""
    result: Resources = {}
    for part in parts:
        for name, value in part.items():
            result[name] = result.get(name, 0) + value
    return result


def largest(parts: Iterable[Mapping[str, int]]) -> Resources:
    """The maximum, resource by resource."""
    result: Resources = {}
    for part in parts:
        for name, value in part.items():
            result[name] = max(result.get(name, 0), value)
    return result


def pod_requests(spec: Mapping[str, Any]) -> Resources:
    """What the scheduler reserves for a pod: containers and sidecars together, or the largest init container, plus
    overhead. Extended resources may be given as limits only; CPU and memory default to their limits too.
    """
    running = [_requests(container) for container in spec.get("containers", [])]
    sidecars: list[Resources] = []
    starting: list[Resources] = []
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            sidecars.append(_requests(container))
        else:
            starting.append(total([_requests(container), *sidecars]))
    return total([largest([total([*running, *sidecars]), *starting]), amounts(spec.get("overhead"))])


def _requests(container: Mapping[str, Any]) -> Resources:
    resources = container.get("resources") or {}
    return {**amounts(resources.get("limits")), **amounts(resources.get("requests"))}
