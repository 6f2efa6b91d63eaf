"""An API server of nothing but heavy nodes: `python -m benchmarks.subjects.heavy_nodes FILE N`.

Each node is about 10 KB: 60 labels, HAMi's register of eight GPUs, 20 images. Writes a kubeconfig to FILE once it
answers. Pages are encoded once, so that serving them costs next to nothing.
"""

import asyncio
import base64
import json
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import NAMESPACE_OID, uuid5

import uvicorn

from sandbox.kubernetes.certificates import Authority

_IMAGES = [
    {"names": [f"registry.example/{i}@sha256:{'0' * 64}", f"registry.example/{i}:v1"], "sizeBytes": i << 20}
    for i in range(20)
]
_FLAGS = ["AVX2", "AVX512F", "AVX512VNNI", "AMXTILE", "AMXBF16", *(f"FLAG{i}" for i in range(42))]


def node(number: int) -> dict[str, Any]:
    """One node."""
    name = f"gpu-{number:05}"
    labels = _labels(name)
    register = [
        {"id": f"GPU-{uuid5(NAMESPACE_OID, f'{name}/{i}')}", "index": i, "count": 10, "devmem": 81920, "devcore": 100,
         "type": "NVIDIA A100-SXM4-80GB", "mode": "hami-core", "health": True}
        for i in range(8)
    ]  # fmt: skip
    resources = {"cpu": "96", "memory": "1176213676Ki", "nvidia.com/gpu": "80", "pods": "250"}
    conditions = [
        {"type": kind, "status": status, "reason": "Kubelet", "message": "kubelet says so",
         "lastHeartbeatTime": "2026-11-24T10:00:00Z", "lastTransitionTime": "2026-11-24T10:00:00Z"}
        for kind, status in
        (("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False"), ("Ready", "True"))
    ]  # fmt: skip
    return {
        "metadata": {
            "name": name,
            "uid": str(uuid5(NAMESPACE_OID, name)),
            "resourceVersion": "1",
            "creationTimestamp": "2026-11-24T10:00:00Z",
            "labels": labels,
            "annotations": {
                "hami.io/node-nvidia-register": json.dumps(register),
                "nfd.node.kubernetes.io/feature-labels": ",".join(labels),
            },
        },
        "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": conditions,
            "nodeInfo": {"architecture": "amd64", "kubeletVersion": "v1.36.4", "osImage": "Amazon Linux 2023"},
            "images": _IMAGES,
        },
    }


def _labels(name: str) -> dict[str, str]:
    return {f"feature.node.kubernetes.io/cpu-cpuid.{flag}": "true" for flag in _FLAGS} | {
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "node.kubernetes.io/instance-type": "p4de.24xlarge",
        "topology.kubernetes.io/zone": "us-east-1a",
        "feature.node.kubernetes.io/cpu-model.vendor_id": "Intel",
        "feature.node.kubernetes.io/cpu-model.family": "6",
        "feature.node.kubernetes.io/cpu-model.id": "143",
        "feature.node.kubernetes.io/pci-0302_10de.present": "true",
        "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
        "nvidia.com/gpu.count": "8",
        "nvidia.com/gpu.memory": "81920",
        "nvidia.com/cuda.driver-version.full": "580.95.05",
        "nvidia.com/gpu.replicas": "1",
    }


class Pages:
    """Answers lists page by page; watches stay silent."""

    def __init__(self, count: int) -> None:
        self._nodes = [json.dumps(node(number)).encode() for number in range(count)]

    async def __call__(self, scope: Any, _: Any, send: Any) -> None:
        query = {name: values[0] for name, values in parse_qs(scope.get("query_string", b"").decode()).items()}
        if scope["type"] != "http":
            return
        if "watch" in query:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            await asyncio.sleep(3600)
        known = scope["path"] in {"/version", "/api/v1/nodes", "/api/v1/pods"}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200 if known else 404, "headers": headers})
        await send({"type": "http.response.body", "body": self._page(scope["path"], query) if known else b"{}"})

    def _page(self, path: str, query: dict[str, str]) -> bytes:
        if path != "/api/v1/nodes":
            return b'{"metadata":{"resourceVersion":"1"},"items":[]}'
        start = int(query.get("continue", "0"))
        end = start + int(query.get("limit", "500"))
        following = str(end) if end < len(self._nodes) else ""
        head = json.dumps({"resourceVersion": "1", "continue": following}).encode()
        return b'{"metadata":' + head + b',"items":[' + b",".join(self._nodes[start:end]) + b"]}"


async def _serve(kubeconfig: Path, count: int) -> None:
    authority = Authority()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Pages(count), log_config=None, access_log=False, lifespan="off", http="httptools")
    config.load()
    config.ssl = authority.context()
    cluster = {
        "server": f"https://127.0.0.1:{listener.getsockname()[1]}",
        "certificate-authority-data": base64.b64encode(authority.pem.encode()).decode(),
    }
    document = {
        "clusters": [{"name": "heavy", "cluster": cluster}],
        "users": [{"name": "heavy", "user": {"token": "any"}}],
        "contexts": [{"name": "heavy", "context": {"cluster": "heavy", "user": "heavy"}}],
        "current-context": "heavy",
    }
    await asyncio.to_thread(kubeconfig.write_text, json.dumps(document))
    await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
