"""Bodies of the routes about hardware."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from budcluster.api.paging import PageQuery
from budcluster.api.schemas import Answer
from budcluster.hardware.inventory import LiveSum, PlacedGpu
from budcluster.hardware.models import AddonName, AddonOwner, AddonState
from budcluster.hardware.reading.profile import ClusterSum, NodeProfile


class Fresh(Answer):
    """How fresh an answer from the inventory is."""

    as_of: datetime | None = Field(
        description="The answer held at this moment; null before the nodes were all read once.",
        examples=["2026-11-24T10:00:00Z"],
    )
    stale_because: str | None = Field(None, description="Why nothing newer comes in; null while all is well.")


class NodeQuery(PageQuery):
    """Which nodes to list."""

    ready: bool | None = Field(None, description="Only nodes whose kubelet reports that it is ready, or is not.")
    schedulable: bool | None = Field(None, description="Only nodes that take new pods, or take none.")
    gpu_model: str | None = Field(None, max_length=128, description="Only with this GPU.", examples=["Tesla-T4"])
    name_prefix: str | None = Field(None, min_length=1, max_length=253, description="Only names that begin so.")
    sort: Literal["name", "-name", "created_at", "-created_at"] = Field(
        "name", description="Field to sort by; a leading minus sorts downwards."
    )


class GpuQuery(PageQuery):
    """Which devices to list."""

    node: str | None = Field(None, min_length=1, max_length=253, description="Only those of this node.")
    gpu_model: str | None = Field(None, max_length=128, description="Only of nodes with this GPU.")
    sort: Literal["place", "-place"] = Field("place", description="By node and position there.")


class NodePage(Fresh):
    """One page of nodes."""

    items: list[NodeProfile]
    next_cursor: str | None = Field(None, description="Ask again with this as `cursor`; null on the last page.")


class GpuPage(Fresh):
    """One page of physical devices."""

    items: list[PlacedGpu]
    next_cursor: str | None = Field(None, description="Ask again with this as `cursor`; null on the last page.")


class HardwareAnswer(Fresh):
    """What the cluster has."""

    cluster_id: UUID
    detected_at: datetime = Field(description="When the hardware was last detected.")
    detected: ClusterSum = Field(description="What was found then.")
    gaps: list[str] = Field(description="What could not be learned then, and why.")
    now: LiveSum | None = Field(
        description="What is there and free as of `as_of`; null before the nodes were all read."
    )


class AddonAnswer(Answer):
    """One add-on of a cluster."""

    name: AddonName
    owner: AddonOwner = Field(description="OURS is kept and removed by this service; OTHER is used and never touched.")
    state: AddonState
    release: str | None = Field(examples=["nfd"])
    namespace: str | None = Field(examples=["node-feature-discovery"])
    chart: str | None = Field(examples=["node-feature-discovery-0.19.0"])
    detail: str | None
    updated_at: datetime


class AddonList(Answer):
    """All add-ons of a cluster: there are a handful."""

    items: list[AddonAnswer]
    next_cursor: None = None
