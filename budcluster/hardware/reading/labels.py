"""Reading labels and quantities that anybody with access to a node may have written: bounded, and never trusted.

A value that makes no sense becomes a gap with the reason; it never becomes a number, and it never raises.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from budcluster.kube.quantities import InvalidQuantity
from budcluster.kube.quantities import parse as parse_quantity

FEATURE: Final = "feature.node.kubernetes.io/"
"""Prefix of the labels of Node Feature Discovery 0.19."""

MOST: Final = 1 << 50
"""Of any one resource: a pebibyte of memory is more than any machine has."""
MOST_IN_SUM: Final = (1 << 63) - 1
"""Sums stop here: it is what JSON and PostgreSQL's bigint hold."""

_SHOWN: Final = 40
_MAX_DEVICES: Final = 1024
# `pci-<class>_<vendor>`, the GPU operator's `pci-<vendor>`, and forms with further fields appended.
_PCI: Final = re.compile(
    r"feature\.node\.kubernetes\.io/pci-(?:(?P<cls>[0-9a-f]{4})_)?(?P<vendor>[0-9a-f]{4})(?:_.*)?\.present", re.ASCII
)
ACCELERATOR_CLASSES: Final = ("03", "12", "0b40")
"""PCI classes of display, processing and co-processor devices."""
_PCI_CLASSES: Final = (*ACCELERATOR_CLASSES, "02")


class Gaps:
    """Collects what could not be learned of one node."""

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}

    def add(self, sentence: str) -> None:
        self._sentences[sentence] = None

    def all(self) -> tuple[str, ...]:
        return tuple(self._sentences)


def shown(value: object) -> str:
    """A foreign value, short enough to stand in a sentence."""
    text = str(value)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def whole_number(values: Mapping[str, Any], key: str, gaps: Gaps, *, at_most: int = _MAX_DEVICES) -> int | None:
    """A label that holds a count. None when it is absent, or is none (with a gap)."""
    text = values.get(key)
    if text is None:
        return None
    if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= 12 and int(text) <= at_most:
        return int(text)
    gaps.add(f"label {key} is {shown(text)}, which is no number from 0 to {at_most}; it was ignored")
    return None


def text_label(values: Mapping[str, Any], key: str, gaps: Gaps) -> str | None:
    """A label that holds a name: at most 63 characters, as the API server allows."""
    text = values.get(key)
    if text is None or text == "":
        return None
    if isinstance(text, str) and len(text) <= 63:
        return text
    gaps.add(f"label {key} is {shown(text)}, which is no label value; it was ignored")
    return None


def quantity(values: Mapping[str, Any], key: str, gaps: Gaps) -> float:
    """A resource quantity; zero when it is absent, or makes no sense (with a gap)."""
    text = values.get(key)
    if text is None:
        return 0
    try:
        number = float(parse_quantity(str(text)))
    except InvalidQuantity:
        gaps.add(f"resource {key} is {shown(text)}, which is no quantity; it was counted as 0")
        return 0
    if number < 0:
        gaps.add(f"resource {key} is {shown(text)}, which is negative; it was counted as 0")
        return 0
    if number > MOST:
        gaps.add(f"resource {key} is {shown(text)}, which is more than any node has; it was counted as 0")
        return 0
    return number


def device_count(values: Mapping[str, Any], key: str, gaps: Gaps) -> int:
    """An extended resource: a whole number of devices or shares."""
    number = quantity(values, key, gaps)
    if number != int(number) or number > _MAX_DEVICES * 100:
        gaps.add(f"resource {key} is {shown(values[key])}, which is no count of devices; it was counted as 0")
        return 0
    return int(number)


def accelerator_vendors(labels: Mapping[str, Any]) -> set[str]:
    """PCI vendor ids of devices that may be accelerators, from the labels of any NFD configuration."""
    vendors = set()
    for key, value in labels.items():
        match = _PCI.fullmatch(key) if value == "true" else None
        if match is None:
            continue
        cls, vendor = match["cls"], match["vendor"]
        if cls is None or cls.startswith(ACCELERATOR_CLASSES):
            vendors.add(vendor)
        elif not cls.startswith(_PCI_CLASSES):
            vendors.add(cls)  # a configuration with [vendor, device]: the first group is the vendor
    return vendors
