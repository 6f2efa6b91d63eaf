"""Who would be hurt if GPUs were handed out in another way."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from budcluster.hardware.models import InventoryGpuPod
from budcluster.hardware.reading.pods import is_over, read_pod
from budcluster.hardware.survey import LIVE_PODS, NVIDIA
from budcluster.kit.database import ReadSession
from budcluster.kube.client import ClusterClient
from budcluster.kube.resources import PODS


async def gpu_holders(session: ReadSession, cluster_id: UUID) -> list[str]:
    """Pods that hold NVIDIA GPUs as the inventory sees them, as `namespace/name`; the work itself asks the cluster."""
    pod = InventoryGpuPod
    placed = select(pod).where(pod.cluster_id == cluster_id, pod.node.is_not(None)).order_by(pod.namespace, pod.name)
    rows = await session.scalars(placed)
    return [f"{row.namespace}/{row.name}" for row in rows if holds_nvidia(row.document) and not is_over(row.document)]


async def gpu_holders_now(client: ClusterClient) -> list[str]:
    """The same as the cluster says itself. Raises KubeError."""
    return [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        async for page in client.list_pages(PODS, field_selector=LIVE_PODS)
        for pod in page["items"]
        if holds_nvidia(pod)
    ]


def holds_nvidia(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has a node and asked it for an NVIDIA resource."""
    asked = read_pod(pod).resources if (pod.get("spec") or {}).get("nodeName") else {}
    return any(name.startswith(NVIDIA) and amount > 0 for name, amount in asked.items())
