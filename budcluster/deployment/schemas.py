"""What deployments look like from outside."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from budcluster.api.paging import LabelledPageQuery
from budcluster.api.schemas import Answer, Versioned
from budcluster.deployment.models import DeploymentStatus, RuntimeType


class Replicas(Answer):
    """Copies of the runtime."""

    desired: int = Field(examples=[2])
    ready: int = Field(examples=[2])


class DeploymentError(Answer):
    """Why a deployment is FAILED."""

    type: str = Field(examples=["/problems/image-pull-failed"])
    detail: str
    step: str | None = None
    since: datetime | None = None


class DeploymentAnswer(Versioned):
    """One model runtime on a cluster."""

    cluster_id: UUID
    endpoint_id: UUID | None = Field(description="The caller's own id of the endpoint that this serves.")
    model_id: UUID | None = Field(description="The caller's own id of the model.")
    name: str = Field(examples=["llama-chat"])
    model: str = Field(examples=["meta-llama/Llama-3.1-8B-Instruct"])
    runtime: RuntimeType
    config: dict[str, Any] = Field(examples=[{"tensor_parallel_size": 2, "replicas": 1}])
    labels: dict[str, str] = Field(examples=[{"team": "search"}])
    status: DeploymentStatus
    namespace: str = Field(examples=["budcluster-models"])
    helm_release: str = Field(examples=["bud-llama-chat-1a2b3c4d"])
    revision: int = Field(examples=[1])
    replicas: Replicas
    servable: bool = Field(description="Whether a request would be answered now.")
    endpoints: list[Any] = Field(examples=[[]])
    diagnosis: dict[str, Any] | None = Field(description="Cause of a failure with its evidence.", examples=[None])
    error: DeploymentError | None = Field(description="Set while status is FAILED.")


class DeploymentQuery(LabelledPageQuery):
    """What to list."""

    cluster_id: UUID | None = Field(None, description="Only on this cluster.")
    endpoint_id: UUID | None = Field(None, description="Only of this endpoint.")
    model_id: UUID | None = Field(None, description="Only of this model.")
    runtime: RuntimeType | None = Field(None, description="Only with this runtime.")
    status: list[DeploymentStatus] | None = Field(None, max_length=8, description="Only with one of these.")
    name: str | None = Field(None, max_length=63, description="Only with exactly this name.")
    sort: Literal["created_at", "-created_at", "name", "-name", "updated_at", "-updated_at"] = Field(
        "-created_at", description="Field to sort by; a leading minus sorts downwards."
    )
