"""Node objects as a kubelet would register them: no feature label that only an agent could know."""

from __future__ import annotations

import random
import uuid
from typing import Any

from sandbox.kubernetes.simulation.hardware import NVIDIA
from sandbox.kubernetes.simulation.machines import Machine

Obj = dict[str, Any]

KUBELET_VERSION = "v1.36.2"
_OS = {
    "aws": ("Amazon Linux 2023.9.20260801", "6.12.40-63.amzn2023.x86_64", "amzn", "2023"),
    "metal": ("Ubuntu 24.04.3 LTS", "6.8.0-79-generic", "ubuntu", "24.04"),
}


def operating_system(machine: Machine) -> tuple[str, str, str, str]:
    """OS image, kernel version, os-release ID and VERSION_ID."""
    return _OS[machine.profile.provider]


def node_object(machine: Machine, *, now: str) -> Obj:
    """The Node of a machine. Devices of AMD and Intel are allocatable at once, as if their plugins were part of the
    image; NVIDIA's wait for a device plugin.
    """
    profile, capacity = machine.profile, _capacity(machine)
    spec: Obj = {"providerID": _provider_id(machine)}
    if profile.taints:
        spec["taints"] = [{"key": key, "value": value, "effect": effect} for key, value, effect in profile.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": machine.name,
            "labels": _labels(machine),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
        "status": {
            "capacity": capacity,
            "allocatable": _allocatable(capacity),
            "conditions": conditions(now),
            "addresses": [
                {"type": "InternalIP", "address": machine.ip},
                {"type": "Hostname", "address": machine.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": _node_info(machine),
            "images": [],
        },
    }


def conditions(now: str, *, ready: bool = True) -> list[Obj]:
    """The four conditions of a kubelet that is well, or of one that stopped posting."""
    if not ready:
        return [
            _condition(kind, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.", now)
            for kind in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
        ]
    well = (
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    )
    rows = [_condition(kind, "False", reason, message, now) for kind, reason, message in well]
    return [*rows, _condition("Ready", "True", "KubeletReady", "kubelet is posting ready status", now)]


def _condition(kind: str, status: str, reason: str, message: str, now: str) -> Obj:
    return {
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    }  # fmt: skip


def _labels(machine: Machine) -> dict[str, str]:
    profile = machine.profile
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": machine.name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": profile.instance_type,
        **profile.labels,
    }
    if profile.provider == "aws":
        zone = "abc"[sum(machine.name.encode()) % 3]
        labels |= {
            "eks.amazonaws.com/nodegroup": "gpu" if profile.accelerator else "cpu",
            "topology.kubernetes.io/region": "us-east-1",
            "topology.kubernetes.io/zone": f"us-east-1{zone}",
        }
    return labels


def _capacity(machine: Machine) -> dict[str, str]:
    profile = machine.profile
    capacity = {
        "cpu": str(profile.cpus),
        "ephemeral-storage": "524275692Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{profile.memory_gib * 1024 * 1024 - 8 * 1024}Ki",
        "pods": "250" if profile.cpus > 16 else "110",
        **profile.extra_capacity,
    }
    if profile.accelerator is not None and profile.accelerator.vendor != NVIDIA:
        capacity[profile.accelerator.resource] = str(profile.count)
    return capacity


def _allocatable(capacity: dict[str, str]) -> dict[str, str]:
    """Capacity less what kubelet keeps for itself and for eviction, in the units kubelet uses."""
    memory = int(capacity["memory"].removesuffix("Ki"))
    reserved = min(memory // 100, 9_437_184) + 102_400
    return {
        **capacity,
        "cpu": f"{int(capacity['cpu']) * 1000 - (110 if int(capacity['cpu']) <= 16 else 310)}m",
        "ephemeral-storage": "482078334428",
        "memory": f"{memory - reserved}Ki",
    }


def _node_info(machine: Machine) -> Obj:
    image, kernel, _, _ = operating_system(machine)
    chance = random.Random(f"{machine.seed}/{machine.name}/host")
    identities = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(3)]
    return {
        "architecture": "amd64",
        "bootID": identities[0],
        "containerRuntimeVersion": "containerd://2.1.4",
        "kernelVersion": kernel,
        "kubeProxyVersion": KUBELET_VERSION,
        "kubeletVersion": KUBELET_VERSION,
        "machineID": identities[1].replace("-", ""),
        "operatingSystem": "linux",
        "osImage": image,
        "systemUUID": identities[2],
    }


def _provider_id(machine: Machine) -> str:
    if machine.profile.provider == "aws":
        chance = random.Random(f"{machine.seed}/{machine.name}/instance")
        return f"aws:///us-east-1a/i-{chance.getrandbits(68):017x}"
    return f"metal://{machine.name}"
