"""What an NFD v0.19 worker finds on a machine: raw features and the labels made of them by default."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.simulation.hardware import AMD, HABANA
from sandbox.kubernetes.simulation.machines import Machine
from sandbox.kubernetes.simulation.nodes import operating_system

Obj = dict[str, Any]

FEATURE_PREFIX = "feature.node.kubernetes.io/"
DEFAULT_CLASSES = ("03", "0b40", "12")


def labels_of(machine: Machine, *, classes: tuple[str, ...], fields: tuple[str, ...]) -> dict[str, str]:
    """Full label names and values. `classes` are PCI class prefixes that are reported, `fields` make up the name."""
    cpu = machine.profile.cpu
    _, kernel, distribution, version = operating_system(machine)
    labels = {f"cpu-cpuid.{flag}": "true" for flag in cpu.flags}
    labels |= {
        "cpu-hardware_multithreading": "true",
        "cpu-model.vendor_id": cpu.vendor,
        "cpu-model.family": str(cpu.family),
        "cpu-model.id": str(cpu.model),
        "kernel-version.full": kernel,
        "kernel-version.major": kernel.split(".")[0],
        "kernel-version.minor": kernel.split(".")[1],
        "kernel-version.revision": kernel.split(".")[2].split("-")[0],
        "kernel-config.NO_HZ": "true",
        "storage-nonrotationaldisk": "true",
        "system-os_release.ID": distribution,
        "system-os_release.VERSION_ID": version,
        "system-os_release.VERSION_ID.major": version.split(".")[0],
    }
    if machine.profile.numa_nodes > 1:
        labels["memory-numa"] = "true"
    if any(vendor == "15b3" for vendor, _ in machine.profile.nics):
        labels |= {"custom-rdma.capable": "true", "network-sriov.capable": "true"}
    for device in pci_devices(machine):
        if device["class"].startswith(classes):
            name = "_".join(device[field] for field in fields if field in device)
            labels[f"pci-{name}.present"] = "true"
    prefixed = {f"{FEATURE_PREFIX}{name}": value for name, value in labels.items()}
    vendors = {device.model.vendor for device in machine.devices}
    if AMD in vendors:
        prefixed[f"{FEATURE_PREFIX}amd-gpu"] = "true"
    if HABANA in vendors:
        prefixed["intel.feature.node.kubernetes.io/gaudi"] = "true"
    return prefixed


def pci_devices(machine: Machine) -> list[dict[str, str]]:
    """Every accelerator and network card, by PCI class, vendor and device id. A lost accelerator is off the bus."""
    cards = [{"class": "0200", "vendor": vendor, "device": device} for vendor, device in machine.profile.nics]
    return cards + [
        {"class": device.model.pci_class, "vendor": device.model.vendor, "device": device.model.pci_device}
        for device in machine.healthy()
    ]


def features(machine: Machine) -> Obj:
    """`spec.features` of the NodeFeature object."""
    cpu, profile = machine.profile.cpu, machine.profile
    link = {"operstate": "up", "speed": "400000" if profile.count > 1 else "25000", "mtu": "9001"}
    return {
        "flags": {"cpu.cpuid": {"elements": {flag: {} for flag in cpu.flags}}},
        "attributes": {
            "cpu.model": {"elements": {"vendor_id": cpu.vendor, "family": str(cpu.family), "id": str(cpu.model)}},
            "cpu.topology": {"elements": {"hardware_multithreading": "true", "socket_count": str(profile.numa_nodes)}},
            "memory.numa": {
                "elements": {"is_numa": str(profile.numa_nodes > 1).lower(), "node_count": str(profile.numa_nodes)}
            },
        },
        "instances": {
            "pci.device": {"elements": [{"attributes": device} for device in pci_devices(machine)]},
            "network.device": {"elements": [{"attributes": {"name": "eth0", **link}}]},
        },
    }  # fmt: skip
