"""Routes about how clusters do."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from budcluster.api.dependencies import provided
from budcluster.api.problems import problems
from budcluster.api.schemas import Answer
from budcluster.cluster.errors import ClusterNotFound
from budcluster.monitoring.devices import MeasuredGpu
from budcluster.monitoring.usage import Source, UsageService

Usages = Annotated[UsageService, provided(UsageService)]

router = APIRouter(prefix="/clusters/{cluster_id}", tags=["monitoring"])


class AmountAnswer(Answer):
    """Of one kind of resource; null where nobody tells."""

    requested: float | None = Field(examples=[12.5])
    used: float | None = Field(examples=[7.25])
    allocatable: float | None = Field(examples=[95.69])


class UsageAnswer(Answer):
    """How much of a cluster is asked for, used and there."""

    source: Source = Field(description="Where `used` comes from; with `requests` nobody measures and it is null.")
    measured_at: datetime
    as_of: datetime | None = Field(description="`requested` and `allocatable` held at this moment.")
    cpu_cores: AmountAnswer
    memory_bytes: AmountAnswer
    gpus: AmountAnswer = Field(
        description="Requested and allocatable as pods ask for them (shares where GPUs are shared); used in whole GPUs."
    )
    gpu_memory_mib: AmountAnswer
    devices: list[MeasuredGpu] | None = Field(
        description="Each GPU as NVIDIA's DCGM measures it, up to 512 of them; null where Prometheus does not tell."
    )
    witness: str | None = Field(description="The Prometheus that answered.", examples=["monitoring/kps-prometheus"])
    notes: list[str] = Field(description="Why a better source did not answer.", examples=[[]])


@router.get("/usage", operation_id="get_usage", summary="Look at resource usage", responses=problems(ClusterNotFound))
async def get_usage(cluster_id: UUID, usages: Usages) -> UsageAnswer:
    """Measured by Prometheus or the metrics API, at most ten seconds old; without them what pods ask for."""
    return UsageAnswer.model_validate(await usages.of(cluster_id))
