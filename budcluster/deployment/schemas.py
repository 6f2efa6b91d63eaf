"""What deployments look like from outside."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from budcluster.api.paging import LabelledPageQuery
from budcluster.api.schemas import Answer, Body, Labels, Name, Parsed, Versioned
from budcluster.deployment.models import DeploymentStatus, RuntimeType
from budcluster.deployment.options import MAX_REPLICAS, DeploymentConfig, check_model


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


RuntimeChoice = Annotated[Literal["auto", "vllm", "sglang", "tensorrt_llm"], BeforeValidator(_lower)]


class DeploymentRequest(Body):
    """A model to be served on a cluster."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "cluster_id": "0a1b2c3d-0000-4000-8000-000000000001",
                    "model": "Qwen/Qwen3-8B",
                    "runtime": "vllm",
                    "config": {"replicas": 1, "input_tokens": 4096, "output_tokens": 1024},
                }
            ]
        }
    )

    cluster_id: Parsed[UUID]
    name: Name | None = Field(None, description="Unique on the cluster; default: from the model's name.")
    model: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(check_model)] = Field(
        description="Hugging Face id, a path in the cache, or an s3:// or gs:// address.", examples=["Qwen/Qwen3-8B"]
    )
    model_id: Parsed[UUID | None] = Field(None, description="Your own id of the model.")
    endpoint_id: Parsed[UUID | None] = Field(None, description="Your own id of the endpoint that this serves.")
    runtime: RuntimeChoice = Field("auto", description="`auto`: the first that runs on the hardware with `config`.")
    config: DeploymentConfig = Field(default_factory=DeploymentConfig)
    labels: Labels = Field(default_factory=dict)

    def runtime_type(self) -> RuntimeType | None:
        """The runtime that was asked for, if any."""
        return None if self.runtime == "auto" else RuntimeType(self.runtime.upper())


class DeploymentChange(Body):
    """What to change; fields of `config` that are left out stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"config": {"image": "vllm/vllm-openai:v0.33.0"}}]})

    config: DeploymentConfig | None = Field(None, description="Copies are changed with `scale`.")
    labels: Labels | None = None


class Scaling(Body):
    """How many copies there should be."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"replicas": 2}]})

    replicas: int = Field(ge=0, le=MAX_REPLICAS, description="Zero parks the deployment.", examples=[2])


class RollingBack(Body):
    """Where to go back to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"revision": 1}]})

    revision: int | None = Field(None, ge=1, le=1_000_000, description="Default: the last one that served before.")


class CreateQuery(Body):
    """How to treat a request for a deployment."""

    model_config = ConfigDict(strict=False)

    dry_run: bool = Field(False, description="True changes nothing and shows fit, values and manifests.")
    force: bool = Field(False, description="True goes on although the cluster has no room now.")


class ForceQuery(Body):
    """How to treat a change."""

    model_config = ConfigDict(strict=False)

    force: bool = Field(False, description="True goes on although the cluster has no room now.")


class DeleteQuery(Body):
    """What to leave behind."""

    model_config = ConfigDict(strict=False)

    keep_cache: bool = Field(False, description="True leaves the claim of the model cache in the cluster.")
    force: bool = Field(False, description="True forgets the deployment when its cluster cannot be reached.")


class Replicas(Answer):
    """Copies of the runtime."""

    desired: int = Field(examples=[2])
    ready: int = Field(examples=[2])


class DeploymentError(Answer):
    """What failed last of a deployment; it may serve all the same."""

    type: str = Field(examples=["/problems/image-pull-failed"])
    detail: str
    next_step: str | None = Field(None, description="What to do about it.")
    step: str | None = None
    since: datetime | None = None
    operation_id: UUID | None = None


class Endpoint(Answer):
    """Where a deployment is reached."""

    kind: Literal["cluster", "ingress"] = Field(description="From inside the cluster, or by its host name.")
    url: str = Field(examples=["http://bud-chat-1a2b3c4d.budcluster-models.svc.cluster.local/v1"])


class Diagnosis(Answer):
    """Why copies do not serve, as the cluster shows it."""

    type: str = Field(description="Stable, for programs.", examples=["gpu-out-of-memory"])
    detail: str
    fix: str = Field(description="What to do about it.")
    pod: str | None = None
    container: str | None = None
    exit_code: int | None = None
    lines: list[str] = Field(default_factory=list, description="The lines that say so, masked.")
    suggestion: dict[str, int | str] | None = Field(
        None, description="Values of `config` that would help.", examples=[{"max_model_len": 74752}]
    )
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
    max_model_len: int | None = Field(description="Tokens of the longest sequence that is served.", examples=[5632])
    labels: dict[str, str] = Field(examples=[{"team": "search"}])
    status: DeploymentStatus
    namespace: str = Field(examples=["budcluster-models"])
    helm_release: str = Field(examples=["bud-llama-chat-1a2b3c4d"])
    revision: int = Field(examples=[1])
    replicas: Replicas
    servable: bool = Field(description="Whether a request would be answered now.")
    endpoints: list[Endpoint]
    served_model: str = Field(description="The `model` to name in requests to an endpoint.", examples=["llama-chat"])
    diagnosis: Diagnosis | None = Field(description="Cause of a failure with its evidence; cleared when it heals.")
    error: DeploymentError | None = Field(description="What failed last; cleared by the next success.")


class DeploymentWithOperation(DeploymentAnswer):
    """A deployment and the long work that was begun on it."""

    operation_id: UUID = Field(description="Follow it at `/operations/{operation_id}`.")
    warnings: list[str] = Field(default_factory=list, description="What is served differently than asked.")


class PoolReasonAnswer(Answer):
    """Why the nodes of one pool do not take the deployment."""

    pool: str
    nodes: int
    reasons: list[str]


class FitAnswer(Answer):
    """Whether the cluster has room."""

    verdict: Literal["yes", "no", "unknown"]
    nodes: list[str] = Field(description="Where the copies would stand.")
    reasons: list[PoolReasonAnswer]
    nearest: list[str] = Field(description="Changes that would fit.")
    needed_mib: int | None = Field(description="Memory of each device; null when the model is not known.")
    resource: str | None = Field(description="The name by which devices are asked for; null without GPUs.")
    warnings: list[str]


class Preview(Answer):
    """What a request would do."""

    fit: FitAnswer
    warnings: list[str]
    runtime: RuntimeType
    image: str
    max_model_len: int
    values: dict[str, Any] = Field(description="Of the chart.")
    manifests: list[dict[str, Any]] = Field(description="As Helm renders them.")


class RevisionAnswer(Answer):
    """One way in which the deployment was or is meant to run."""

    number: int
    config: dict[str, Any]
    image: str
    actor: str
    reason: str
    operation_id: UUID | None
    created_at: datetime
    served_at: datetime | None = Field(description="When it first answered a prompt; null: it never did.")
    is_current: bool


class Revisions(Answer):
    """All revisions, newest first."""

    items: list[RevisionAnswer]


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
