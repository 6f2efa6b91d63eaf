"""Processors of a node from Node Feature Discovery's labels (0.19) and the node's own counts."""

from collections.abc import Mapping
from typing import Any, Final

from budcluster.hardware.reading.labels import FEATURE, Gaps, quantity, text_label, whole_number
from budcluster.hardware.reading.profile import Cpu

# CPUID family and model; Linux kernel, arch/x86/include/asm/intel-family.h, and AMD's processor programming references.
_GENERATIONS: Final[dict[tuple[str, int, int], str]] = {
    ("Intel", 6, 85): "Skylake or Cascade Lake",
    ("Intel", 6, 106): "Ice Lake",
    ("Intel", 6, 143): "Sapphire Rapids",
    ("Intel", 6, 207): "Emerald Rapids",
    ("Intel", 6, 173): "Granite Rapids",
    ("AMD", 25, 1): "Milan (Zen 3)",
    ("AMD", 25, 17): "Genoa (Zen 4)",
    ("AMD", 26, 2): "Turin (Zen 5)",
}
_FLAG: Final = FEATURE + "cpu-cpuid."
WANTED_FLAGS: Final = ("AVX2", "AVX512", "AMX", "AVXVNNI")


def read_cpu(labels: Mapping[str, Any], capacity: Mapping[str, Any], allocatable: Mapping[str, Any], gaps: Gaps) -> Cpu:
    """The processors; vendor and flags are unknown before NFD ran on the node."""
    vendor = text_label(labels, FEATURE + "cpu-model.vendor_id", gaps)
    family = whole_number(labels, FEATURE + "cpu-model.family", gaps, at_most=100_000)
    model = whole_number(labels, FEATURE + "cpu-model.id", gaps, at_most=100_000)
    multithreading = labels.get(FEATURE + "cpu-hardware_multithreading")
    known = vendor is not None and family is not None and model is not None
    return Cpu(
        vendor=vendor,
        family=family,
        model=model,
        generation=_GENERATIONS.get((vendor or "", family or 0, model or 0)) if known else None,
        cores=quantity(capacity, "cpu", gaps),
        allocatable_cores=quantity(allocatable, "cpu", gaps),
        threads_per_core={"true": 2, "false": 1}.get(str(multithreading)),
        features=tuple(
            sorted(
                flag
                for key, value in labels.items()
                if key.startswith(_FLAG) and value == "true" and (flag := key[len(_FLAG) :]).startswith(WANTED_FLAGS)
            )
        ),
    )
