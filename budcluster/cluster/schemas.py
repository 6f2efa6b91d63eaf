"""What clusters look like from outside."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, field_validator

from budcluster.api.paging import LabelledPageQuery
from budcluster.api.schemas import Answer, Body, Labels, Name, Parsed, Versioned
from budcluster.cluster.models import ClusterHealth, ClusterOrigin, ClusterProvider, ClusterStatus
from budcluster.cluster.options import ClusterOptions
from budcluster.hardware.models import AddonName, AddonOwner
from budcluster.hardware.reading.profile import Sharing


class ClusterRegistration(Body):
    """A cluster to be known to this service."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "berlin-lab", "provider": "ON_PREMISES", "region": "berlin", "labels": {"team": "search"}},
                {"name": "prod-eu", "provider": "AWS_EKS", "origin": "ADOPTED", "region": "eu-central-1"},
            ]
        }
    )

    name: Name
    provider: Parsed[ClusterProvider] = Field(examples=["ON_PREMISES"])
    origin: Parsed[ClusterOrigin | None] = Field(
        None,
        description="ADOPTED for a cluster that exists already, PROVISIONED for one to be made. "
        "Default: ADOPTED for ON_PREMISES, PROVISIONED otherwise.",
        examples=["ADOPTED"],
    )
    region: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Cloud region, or where the machines stand.",
        examples=["eu-central-1"],
    )
    labels: Labels = Field(default_factory=dict)


_KEPT = "Left out, the present choice stays; at first it is"


class Onboarding(Body):
    """How to reach an existing cluster, and what the service may do there."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kubeconfig": "apiVersion: v1\nkind: Config\n…", "context": "prod", "gpu_sharing": "hami"},
            ]
        }
    )

    kubeconfig: str = Field(
        min_length=1,
        max_length=1024 * 1024,
        description="YAML or JSON, everything inline. It is rebuilt, sealed, and forgotten at the end of the "
        "onboarding that gives the service an account of its own in the cluster.",
        examples=["apiVersion: v1\nkind: Config\n…"],
    )
    context: str | None = Field(
        None, min_length=1, max_length=253, description="Which context, where there are several.", examples=["prod"]
    )
    manage_addons: bool | None = Field(
        None,
        description=f"False gives the service a narrow role: it installs nothing and serves models only. {_KEPT} true.",
        examples=[True],
    )
    gpu_sharing: Parsed[Sharing | None] = Field(
        None, description=f"`hami`, `time-slicing` or `none`: how NVIDIA GPUs are handed to pods. {_KEPT} `hami`."
    )
    replicas_per_gpu: int | None = Field(
        None, ge=2, le=64, description=f"Shares of one GPU under time-slicing. {_KEPT} 4."
    )
    keep_upload: bool | None = Field(
        None, description=f"True keeps the uploaded kubeconfig, sealed, beside our own. {_KEPT} false."
    )
    force: bool = Field(False, description="Change how GPUs are shared although running pods hold some and will break.")
    take_over: bool = Field(
        False,
        description="Take a cluster over that another budcluster manages, for one whose database is lost. That one's "
        "access ends.",
    )

    @field_validator("gpu_sharing")
    @classmethod
    def _is_a_choice(cls, value: Sharing | None) -> Sharing | None:
        if value not in {None, Sharing.HAMI, Sharing.TIME_SLICING, Sharing.NONE}:
            raise ValueError("must be hami, time-slicing or none")
        return value

    @property
    def choices(self) -> dict[str, Any]:
        """The options that were named."""
        return self.model_dump(mode="json", include=set(ClusterOptions.model_fields), exclude_none=True)


class ResourceError(Answer):
    """Why a resource is in ERROR or FAILED."""

    type: str = Field(examples=["/problems/cluster-unreachable"])
    detail: str
    next_step: str | None = Field(None, description="What to do about it.")
    step: str | None = None
    since: datetime | None = None
    operation_id: UUID | None = None


class HealthReason(Answer):
    """Why a cluster is not simply well."""

    code: str = Field(description="Stable, for programs.", examples=["nodes-not-ready"])
    detail: str = Field(examples=["Not ready: h100-3."])
    severity: Literal["problem", "warning"] = Field(description="A warning tells of what will be wrong.")
    next_step: str | None = Field(None, description="What to do, where that does not go without saying.")


class PresentAddon(Answer):
    """An add-on that was there already."""

    name: AddonName
    owner: AddonOwner
    release: str | None
    namespace: str | None
    version: str | None = Field(description="Null where its maker does not tell.")


class AccountRights(Answer):
    """What the service's account may do in the cluster."""

    role: Literal["cluster-admin", "narrow"]
    why: str
    may: list[str] = Field(default_factory=list, examples=[["everything"]])


class AdoptionReport(Answer):
    """What was found in a cluster before anything was changed."""

    kubernetes: str = Field(examples=["v1.36.2"])
    nodes: int
    architectures: list[str] = Field(examples=[["amd64"]])
    container_runtimes: list[str] = Field(examples=[["containerd://2.2.1"]])
    default_storage_class: str | None
    storage_classes: list[str]
    access: AccountRights
    addons: list[PresentAddon] = Field(default_factory=list)
    warnings: list[str]


class ClusterListed(Versioned):
    """One cluster in a list."""

    name: str = Field(examples=["berlin-lab"])
    provider: ClusterProvider
    origin: ClusterOrigin
    region: str | None
    status: ClusterStatus
    labels: dict[str, str] = Field(examples=[{"team": "search"}])
    kubernetes_version: str | None = Field(examples=["v1.33.4"])
    node_count: int = Field(examples=[8])
    gpu_count: int = Field(description="Physical devices.", examples=[64])
    health: ClusterHealth
    health_reasons: list[HealthReason]
    health_since: datetime | None
    error: ResourceError | None = Field(description="Set while status is ERROR.")
    server: str | None = Field(description="Address of the API server.", examples=["https://10.0.0.5:6443"])


class ClusterAnswer(ClusterListed):
    """One cluster, with what would be too much for a list."""

    settings: ClusterOptions = Field(description="What was chosen when it was onboarded.")
    adoption_report: AdoptionReport | None = Field(description="What was found when it was onboarded.")


class ClusterWithOperation(ClusterAnswer):
    """A cluster and the long work that was begun on it."""

    operation_id: UUID = Field(description="Follow it at `/operations/{operation_id}`.")


class ClusterQuery(LabelledPageQuery):
    """What to list."""

    provider: ClusterProvider | None = Field(None, description="Only of this provider.")
    status: list[ClusterStatus] | None = Field(None, max_length=8, description="Only with one of these.")
    health: ClusterHealth | None = Field(None, description="Only with this health.")
    name: str | None = Field(None, max_length=63, description="Only with exactly this name.")
    sort: Literal["created_at", "-created_at", "name", "-name", "updated_at", "-updated_at"] = Field(
        "-created_at", description="Field to sort by; a leading minus sorts downwards."
    )
