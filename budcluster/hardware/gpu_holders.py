"""Who would be hurt if GPUs were handed out in another way."""

from uuid import UUID

from sqlalchemy import select

from budcluster.hardware.models import InventoryGpuPod
from budcluster.hardware.pods import is_over
from budcluster.hardware.survey import holds_nvidia
from budcluster.kit.database import ReadSession


async def gpu_holders(session: ReadSession, cluster_id: UUID) -> list[str]:
    """Pods that hold NVIDIA GPUs as the inventory sees them now; the work itself asks the cluster again."""
    pod = InventoryGpuPod
    placed = select(pod).where(pod.cluster_id == cluster_id, pod.node.is_not(None)).order_by(pod.namespace, pod.name)
    rows = await session.scalars(placed)
    return [f"{row.namespace}/{row.name}" for row in rows if holds_nvidia(row.document) and not is_over(row.document)]
