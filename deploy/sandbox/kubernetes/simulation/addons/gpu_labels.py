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
    model = healthy[0].model
    split = machine.profile.partitioned and model.mig_profile is not None
    product, count, memory = model.label, len(healthy), model.memory_mib
    if split and mig == "single":
        product, count, memory = f"{product}-MIG-{model.mig_profile}", count * _SLICES, memory // 8
    if sharing.replicas > 1 and not sharing.renamed:
        product += "-SHARED"
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
        **_cuda_versions(machine.driver),
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


def _cuda_versions(driver: str) -> dict[str, str]:
    """Discovery says each version twice, under an older and a newer name."""
    major, minor, revision = [*driver.split("."), "", ""][:3]
    runtime = "13.0" if int(major) >= 580 else "12.4"
    runtime_major, runtime_minor = runtime.split(".")
    return {
        "cuda.driver-version.full": driver,
        "cuda.driver-version.major": major,
        "cuda.driver-version.minor": minor,
        "cuda.driver-version.revision": revision,
        "cuda.driver.major": major,
        "cuda.driver.minor": minor,
        "cuda.driver.rev": revision,
        "cuda.runtime-version.full": runtime,
        "cuda.runtime-version.major": runtime_major,
        "cuda.runtime-version.minor": runtime_minor,
        "cuda.runtime.major": runtime_major,
        "cuda.runtime.minor": runtime_minor,
    }
