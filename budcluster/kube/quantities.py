"""Kubernetes quantities, read as strictly as the API server reads them, into exact numbers.

Grammar, rounding and limits: k8s.io/apimachinery `pkg/api/resource/quantity.go`. The official Python client's
`parse_quantity` is laxer (it accepts "NaN", "1_000", "  5", Arabic digits), and node labels hold whatever somebody
wrote there.
"""

import re
from decimal import ROUND_HALF_EVEN, ROUND_UP, Context, Decimal
from functools import lru_cache
from typing import Final

_GRAMMAR: Final = re.compile(
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))(?P<suffix>Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?\d+)?",
    re.ASCII,
)
_LONGEST: Final = 64
"""Characters. The longest quantity that means something has about 30."""
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_NANO: Final = Decimal("1e-9")
_LARGEST: Final = Decimal(2**63 - 1)
_LARGEST_EXPONENT: Final = 40
"""Beyond it every number is zero or capped; "1e999999999" must not cost memory."""
_EXACT: Final = Context(prec=400, rounding=ROUND_HALF_EVEN)


class InvalidQuantity(ValueError):
    """A text that the Kubernetes API would not accept as a quantity."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text[:_LONGEST]!r} {reason}")


def parse(text: str | int) -> Decimal:
    """The exact value. Finer than nano is rounded away from zero.

    Binary quantities are capped at 2^63-1, as the API server does. Integers are taken as JSON has them.
    Raises InvalidQuantity.
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise InvalidQuantity(repr(text), "is not a quantity: a text or an integer is expected.")
    text = str(text) if isinstance(text, str) or abs(text) < 10**_LONGEST else "too long" * _LONGEST
    if len(text) > _LONGEST:
        raise InvalidQuantity(text, "is too long for a quantity.")
    return _value(text)


@lru_cache(maxsize=4096)
def _value(text: str) -> Decimal:
    # The nodes and pods of a cluster ask for the same few amounts again and again.
    found = _GRAMMAR.fullmatch(text)
    if found is None:
        raise InvalidQuantity(text, "is not a quantity; examples are 500m, 4, 16Gi, 1e3.")
    number, suffix = Decimal(found["number"]), found["suffix"] or ""
    if suffix in _BINARY:
        return _rounded(min(max(_EXACT.multiply(number, Decimal(1024 ** _BINARY[suffix])), -_LARGEST), _LARGEST))
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:] or 0)
    bounded = min(max(exponent, -_LARGEST_EXPONENT - _LONGEST), _LARGEST_EXPONENT)
    if bounded < exponent and number:
        raise InvalidQuantity(text, "is larger than any resource.")
    return _rounded(number.scaleb(bounded, _EXACT))


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(_NANO, rounding=ROUND_UP, context=_EXACT).normalize(_EXACT) + 0
