"""What GPU feature discovery (k8s-device-plugin v0.20) writes about a machine, and what its device plugin offers."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.kubernetes.simulation.machines import Machine

_SLICES = 7
"""Instances of the smallest MIG profile on one data-centre GPU."""


@dataclass(frozen=True)
class Sharing:
    """Time-slicing of one node: copies of each GPU, and whether the resource gets another name."""

    replicas: int = 1
    renamed: bool = False


def resources(machine: Machine, sharing: Sharing, *, mig: str) -> dict[str, int]:
    """The extended resources of a machine. `mig` is the strategy: none, single or mixed."""
    count = len(machine.healthy())
    profile = machine.devices[0].model.mig_profile if machine.devices else None
    if machine.profile.partitioned and profile and mig == "mixed":
        return {"nvidia.com/gpu": 0, f"nvidia.com/mig-{profile}": count * _SLICES}
    if machine.profile.partitioned and mig == "single":
        count *= _SLICES
    name = "nvidia.com/gpu.shared" if sharing.renamed and sharing.replicas > 1 else "nvidia.com/gpu"
    return {name: count * sharing.replicas}


def labels(machine: Machine, sharing: Sharing, *, mig: str, now: float) -> dict[str, str]:
    """All labels under `nvidia.com/`; empty without a driver. They describe the first GPU."""
    healthy = machine.healthy()
    if not healthy or machine.driver is None:
        return {}
    model, driver = healthy[0].model, machine.driver.split(".")
    split = machine.profile.partitioned and model.mig_profile is not None
    product, count, memory = model.label, len(healthy), model.memory_mib
    if split and mig == "single":
        product, count, memory = f"{product}-MIG-{model.mig_profile}", count * _SLICES, memory // 8
    if sharing.replicas > 1 and not sharing.renamed:
        product += "-SHARED"
    runtime = "13.0" if int(driver[0]) >= 580 else "12.4"
    found = {
        "gpu.product": product,
        "gpu.count": str(count),
        "gpu.memory": str(memory),
        "gpu.family": model.family,
        "gpu.compute.major": str(model.compute[0]),
        "gpu.compute.minor": str(model.compute[1]),
        "gpu.replicas": "0" if split and mig == "mixed" else str(sharing.replicas),
        "gpu.sharing-strategy": "time-slicing" if sharing.replicas > 1 else "none",
        "gpu.machine": machine.profile.instance_type,
        "gpu.mode": "compute",
        "mig.capable": str(model.mig_profile is not None).lower(),
        "mig.strategy": mig,
        "mps.capable": "false",
        "vgpu.present": "false",
        "cuda.driver-version.full": machine.driver,
        "cuda.driver-version.major": driver[0],
        "cuda.driver-version.minor": driver[1],
        "cuda.driver-version.revision": driver[2] if len(driver) > 2 else "",
        "cuda.driver.major": driver[0],
        "cuda.driver.minor": driver[1],
        "cuda.driver.rev": driver[2] if len(driver) > 2 else "",
        "cuda.runtime-version.full": runtime,
        "cuda.runtime-version.major": runtime.split(".", maxsplit=1)[0],
        "cuda.runtime-version.minor": runtime.split(".")[1],
        "cuda.runtime.major": runtime.split(".", maxsplit=1)[0],
        "cuda.runtime.minor": runtime.split(".")[1],
        "gfd.timestamp": str(int(now)),
    }
    if split and mig == "mixed":
        name = f"mig-{model.mig_profile}"
        found |= {
            f"{name}.count": str(len(healthy) * _SLICES),
            f"{name}.memory": str(memory // 8),
            f"{name}.product": f"{product}-MIG-{model.mig_profile}",
            f"{name}.replicas": "1",
        }
    return {f"nvidia.com/{key}": value for key, value in found.items()}
