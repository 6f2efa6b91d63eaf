"""The hardware catalogue: accelerators and processors as their tools would report them.

NVML names, MiB and compute capabilities follow NVIDIA k8s-device-plugin v0.20.0 fixtures and data sheets; AMD values
ROCm k8s-device-plugin; PCI ids the public PCI id database; CPUID family and model the vendors' manuals.
"""

from __future__ import annotations

from dataclasses import dataclass

NVIDIA, AMD, HABANA = "10de", "1002", "1da3"


@dataclass(frozen=True)
class Accelerator:
    """One model of accelerator. `memory_mib` is what the vendor's tool reports for one device."""

    name: str
    vendor: str
    pci_class: str
    pci_device: str
    memory_mib: int
    resource: str
    family: str = ""
    compute: tuple[int, int] = (0, 0)
    mig_profile: str | None = None

    @property
    def label(self) -> str:
        """The name as GPU feature discovery puts it into a label: blanks become dashes."""
        return self.name.replace(" ", "-")


def _nvidia(
    name: str, mib: int, family: str, compute: tuple[int, int], device: str, mig: str | None = None
) -> Accelerator:
    return Accelerator(name, NVIDIA, "0302", device, mib, "nvidia.com/gpu", family, compute, mig)


H100 = _nvidia("NVIDIA H100 80GB HBM3", 81559, "hopper", (9, 0), "2330", "1g.10gb")
H200 = _nvidia("NVIDIA H200", 143771, "hopper", (9, 0), "2335", "1g.18gb")
B200 = _nvidia("NVIDIA B200", 183359, "blackwell", (10, 0), "2901", "1g.23gb")
A100 = _nvidia("NVIDIA A100-SXM4-80GB", 81920, "ampere", (8, 0), "20b2", "1g.10gb")
L40S = _nvidia("NVIDIA L40S", 46068, "ada-lovelace", (8, 9), "26b9")
L4 = _nvidia("NVIDIA L4", 23034, "ada-lovelace", (8, 9), "27b8")
A10G = _nvidia("NVIDIA A10G", 23028, "ampere", (8, 6), "2237")
T4 = _nvidia("Tesla T4", 15360, "turing", (7, 5), "1eb8")
MI300X = Accelerator("AMD Instinct MI300X OAM", AMD, "1200", "74a1", 196592, "amd.com/gpu", "AI")
GAUDI3 = Accelerator("HL-325L", HABANA, "1200", "1060", 131072, "habana.ai/gaudi")


@dataclass(frozen=True)
class Processor:
    """One model of CPU, with the flags that node feature discovery does not suppress."""

    vendor: str
    family: int
    model: int
    flags: tuple[str, ...]


_BASE = ("ADX", "AESNI", "AVX", "AVX2", "FMA3", "HYPERVISOR", "MOVBE", "OSXSAVE", "VAES", "X86_64_V2", "X86_64_V3")
_AVX512 = ("AVX512BW", "AVX512CD", "AVX512DQ", "AVX512F", "AVX512VL", "AVX512VNNI", "X86_64_V4")
_AMX = ("AMXBF16", "AMXINT8", "AMXTILE", "AVX512BF16", "AVX512FP16", "AVXVNNI")

CASCADE_LAKE = Processor("Intel", 6, 85, _BASE + _AVX512)
SAPPHIRE_RAPIDS = Processor("Intel", 6, 143, _BASE + _AVX512 + _AMX)
GENOA = Processor("AMD", 25, 17, (*_BASE, *_AVX512, "AVX512BF16"))
