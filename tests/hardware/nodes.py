"""Node objects as real clusters return them, by kind of machine; values as recorded from the vendors' own discovery."""

import copy
import json
from typing import Any

Node = dict[str, Any]

_A100 = json.loads("""
{
  "metadata": {
    "name": "ip-10-0-1-17.ec2.internal",
    "labels": {
      "kubernetes.io/arch": "amd64",
      "node.kubernetes.io/instance-type": "p4de.24xlarge",
      "topology.kubernetes.io/zone": "us-east-1a",
      "feature.node.kubernetes.io/cpu-model.vendor_id": "Intel",
      "feature.node.kubernetes.io/cpu-model.family": "6",
      "feature.node.kubernetes.io/cpu-model.id": "85",
      "feature.node.kubernetes.io/cpu-hardware_multithreading": "true",
      "feature.node.kubernetes.io/cpu-cpuid.AVX512F": "true",
      "feature.node.kubernetes.io/cpu-cpuid.AVX512VNNI": "true",
      "feature.node.kubernetes.io/cpu-cpuid.HYPERVISOR": "true",
      "feature.node.kubernetes.io/memory-numa": "true",
      "feature.node.kubernetes.io/pci-0302_10de.present": "true",
      "nvidia.com/gpu.present": "true",
      "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
      "nvidia.com/gpu.count": "8",
      "nvidia.com/gpu.memory": "81920",
      "nvidia.com/gpu.family": "ampere",
      "nvidia.com/gpu.replicas": "1",
      "nvidia.com/gpu.sharing-strategy": "none",
      "nvidia.com/cuda.driver-version.full": "580.95.05",
      "nvidia.com/cuda.driver-version.major": "580",
      "nvidia.com/cuda.runtime-version.full": "13.0"
    },
    "annotations": {"nfd.node.kubernetes.io/feature-labels": "cpu-model.family,pci-0302_10de.present"}
  },
  "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]},
  "status": {
    "capacity": {"cpu": "96", "memory": "1176213676Ki", "nvidia.com/gpu": "8", "pods": "250"},
    "allocatable": {"cpu": "95690m", "memory": "1166520492Ki", "nvidia.com/gpu": "8", "pods": "250"},
    "conditions": [
      {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory"},
      {"type": "DiskPressure", "status": "False", "reason": "KubeletHasNoDiskPressure"},
      {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    ],
    "nodeInfo": {
      "kubeletVersion": "v1.35.6-eks-1234567",
      "osImage": "Amazon Linux 2023.9.20260801",
      "kernelVersion": "6.12.40-63.amzn2023.x86_64",
      "architecture": "amd64"
    }
  }
}
""")

REGISTER_JSON = (
    '[{"id":"GPU-0","count":10,"devmem":81920,"devcore":100,"type":"NVIDIA A100-SXM4-80GB","mode":"hami-core",'
    '"health":true},{"id":"GPU-1","index":1,"count":10,"devmem":81920,"devcore":100,"type":"NVIDIA A100-SXM4-80GB",'
    '"numa":1,"mode":"hami-core"}]'
)
REGISTER_LEGACY = "GPU-0,10,81920,100,NVIDIA A100-SXM4-80GB,0,true:GPU-1,10,81920,100,NVIDIA A100-SXM4-80GB,1,false:"


REGISTER_MIXED = (
    '[{"id":"GPU-0","count":10,"devmem":81920,"devcore":100,"type":"NVIDIA A100-SXM4-80GB","health":true},'
    '{"id":"GPU-1","index":1,"count":10,"devmem":15360,"devcore":100,"type":"NVIDIA-Tesla T4","health":true}]'
)


def a100x8() -> Node:
    """An EKS node with eight A100, everything installed."""
    return copy.deepcopy(_A100)


def with_labels(node: Node, *, drop: str = "\0", **labels: str) -> Node:
    """The node with some labels dropped by prefix and others set; `__` stands for `/` and `_` for itself."""
    kept = {key: value for key, value in node["metadata"]["labels"].items() if not key.startswith(drop)}
    node["metadata"]["labels"] = kept | {key.replace("__", "/"): value for key, value in labels.items()}
    return node


def with_resources(node: Node, resources: dict[str, str], *, drop: str = "nvidia.com/") -> Node:
    """The node with other extended resources."""
    for part in ("capacity", "allocatable"):
        kept = {key: value for key, value in node["status"][part].items() if not key.startswith(drop)}
        node["status"][part] = kept | resources
    return node


def t4_time_sliced() -> Node:
    """One T4 shared by four."""
    node = a100x8()
    node["metadata"]["labels"] |= {
        "nvidia.com/gpu.product": "Tesla-T4-SHARED",
        "nvidia.com/gpu.count": "1",
        "nvidia.com/gpu.memory": "15360",
        "nvidia.com/gpu.replicas": "4",
        "nvidia.com/gpu.sharing-strategy": "time-slicing",
    }
    return with_resources(node, {"nvidia.com/gpu": "4"})


def l40s() -> Node:
    """Four L40S, in a machine with an RDMA network."""
    node = a100x8()
    node["metadata"]["labels"] |= {
        "nvidia.com/gpu.product": "NVIDIA-L40S",
        "nvidia.com/gpu.count": "4",
        "nvidia.com/gpu.memory": "46068",
        "nvidia.com/gpu.family": "ada-lovelace",
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "9",
        "nvidia.com/mig.capable": "false",
        "feature.node.kubernetes.io/network-sriov.capable": "true",
        "feature.node.kubernetes.io/custom-rdma.capable": "true",
    }
    return with_resources(node, {"nvidia.com/gpu": "4"})


def h100_mig_mixed() -> Node:
    """One H100 with two slices of 3g.40gb."""
    node = a100x8()
    node["metadata"]["labels"] |= {
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.count": "1",
        "nvidia.com/gpu.memory": "81559",
        "nvidia.com/gpu.replicas": "0",
        "nvidia.com/mig.strategy": "mixed",
        "nvidia.com/mig-3g.40gb.count": "2",
        "nvidia.com/mig-3g.40gb.memory": "40320",
        "nvidia.com/mig-3g.40gb.product": "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb",
    }
    return with_resources(node, {"nvidia.com/gpu": "0", "nvidia.com/mig-3g.40gb": "2"})


def mi300x8() -> Node:
    """Eight MI300X."""
    node = with_labels(a100x8(), drop="nvidia.com/")
    del node["metadata"]["labels"]["feature.node.kubernetes.io/pci-0302_10de.present"]
    node["metadata"]["labels"] |= {
        "feature.node.kubernetes.io/amd-gpu": "true",
        "feature.node.kubernetes.io/pci-1200_1002.present": "true",
        "amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM",
        "amd.com/gpu.vram": "192G",
        "amd.com/gpu.driver-version": "6.12.12",
    }
    return with_resources(node, {"amd.com/gpu": "8"})


def gaudi3x8() -> Node:
    """Eight Gaudi3."""
    node = with_labels(a100x8(), drop="nvidia.com/")
    del node["metadata"]["labels"]["feature.node.kubernetes.io/pci-0302_10de.present"]
    node["metadata"]["labels"]["feature.node.kubernetes.io/pci-1200_1da3.present"] = "true"
    return with_resources(node, {"habana.ai/gaudi": "8"})


def sapphire_rapids() -> Node:
    """A node without any GPU."""
    node = with_labels(a100x8(), drop="nvidia.com/")
    labels = node["metadata"]["labels"]
    del labels["feature.node.kubernetes.io/pci-0302_10de.present"]
    labels |= {
        "feature.node.kubernetes.io/cpu-model.id": "143",
        "feature.node.kubernetes.io/cpu-cpuid.AMXTILE": "true",
        "feature.node.kubernetes.io/cpu-cpuid.AMXBF16": "true",
    }
    node["metadata"]["labels"] = labels
    return with_resources(node, {})


def genoa() -> Node:
    """A node with AMD's processors and no GPU."""
    node = sapphire_rapids()
    labels = node["metadata"]["labels"]
    for flag in ("AMXTILE", "AMXBF16"):
        del labels["feature.node.kubernetes.io/cpu-cpuid." + flag]
    labels |= {
        "feature.node.kubernetes.io/cpu-model.vendor_id": "AMD",
        "feature.node.kubernetes.io/cpu-model.family": "25",
        "feature.node.kubernetes.io/cpu-model.id": "17",
        "feature.node.kubernetes.io/cpu-cpuid.AVX512BF16": "true",
    }
    return node


def max1550() -> Node:
    """Two of Intel's data centre GPUs, each shared by five."""
    node = with_labels(a100x8(), drop="nvidia.com/")
    del node["metadata"]["labels"]["feature.node.kubernetes.io/pci-0302_10de.present"]
    node["metadata"]["labels"] |= {
        "feature.node.kubernetes.io/pci-0380_8086.present": "true",
        "intel.feature.node.kubernetes.io/gpu": "true",
        "gpu.intel.com/product": "Max_1550",
        "gpu.intel.com/family": "Max_Series",
        "gpu.intel.com/device.count": "2",
    }
    return with_resources(node, {"gpu.intel.com/i915": "0", "gpu.intel.com/xe": "10", "gpu.intel.com/monitoring": "1"})


def hami(register: str = REGISTER_JSON) -> Node:
    """Two A100 that HAMi hands out in ten shares each."""
    node = a100x8()
    node["metadata"]["labels"]["nvidia.com/gpu.count"] = "2"
    node["metadata"]["annotations"]["hami.io/node-nvidia-register"] = register
    return with_resources(node, {"nvidia.com/gpu": "20"})


def feature_of(node: Node, *, vendor: str, device: str, cls: str, count: int, numa: str | None = None) -> Node:
    """The NodeFeature object of a node with some PCI devices, and a network card that is none of them."""
    elements = [{"attributes": {"class": cls, "vendor": vendor, "device": device}}] * count
    elements += [{"attributes": {"class": "0200", "vendor": vendor, "device": "1021"}}]
    features: Node = {"instances": {"pci.device": {"elements": elements}}}
    if numa is not None:
        features["attributes"] = {"memory.numa": {"elements": {"is_numa": "true", "node_count": numa}}}
    return {"metadata": {"name": node["metadata"]["name"]}, "spec": {"features": features}}


def pod(node: Node, name: str = "p", *, allocated: str | None = None, phase: str = "Running", **limits: str) -> Node:
    """A pod on the node; `__` in a limit stands for `/`, a single `_` for a dot."""
    resources = {key.replace("__", "/").replace("_", "."): value for key, value in limits.items()}
    annotations = {"hami.io/vgpu-devices-allocated": allocated} if allocated else {}
    return {
        "metadata": {"namespace": "work", "name": name, "annotations": annotations},
        "spec": {
            "nodeName": node["metadata"]["name"],
            "containers": [{"name": "main", "resources": {"limits": resources}}],
        },
        "status": {"phase": phase},
    }
