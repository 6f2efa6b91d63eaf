"""What the service keeps of the hardware: add-ons, and the live inventory of nodes and of the pods that hold GPUs."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, cast, false, func, select, text
from sqlalchemy.orm import Mapped, mapped_column

from budcluster.kit.database import Base, text_enum


class AddonName(StrEnum):
    """What the service can put into a cluster."""

    PROMETHEUS = "prometheus"
    NFD = "nfd"
    GPU_OPERATOR = "gpu-operator"
    HAMI = "hami"


class AddonOwner(StrEnum):
    """Who installed an add-on. What others installed is used and never touched."""

    OURS = "OURS"
    OTHER = "OTHER"


class AddonState(StrEnum):
    """How an add-on does."""

    READY = "READY"
    FAILED = "FAILED"
    """It could not be installed or does not work; the cluster goes on without it."""


class InventoryState(Base):
    """How the inventory of one cluster stands, and which replica keeps it."""

    __tablename__ = "inventory_states"

    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    holder: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None]
    synced: Mapped[bool] = mapped_column(server_default=false())
    """Whether every object was read at least once."""
    as_of: Mapped[datetime | None]
    """When the cluster last answered while the inventory was complete: what is in it held at that moment."""
    error: Mapped[str | None] = mapped_column(Text)
    """Why nothing new comes in just now, and what to do."""
    cpu_requested: Mapped[float] = mapped_column(server_default=text("0"))
    """Cores that the live pods of the whole cluster ask for."""
    memory_requested_bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class InventoryNode(Base):
    """One node, trimmed to what `reader.read_node` looks at; the columns are read from it to filter and to sum by."""

    __tablename__ = "inventory_nodes"
    __table_args__ = (Index("ix_inventory_nodes_created_at", "cluster_id", "created_at", "uid"),)

    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(253), primary_key=True)
    uid: Mapped[UUID]
    created_at: Mapped[datetime]
    document: Mapped[dict[str, Any]]
    feature: Mapped[dict[str, Any] | None]
    """The trimmed NodeFeature object, where Node Feature Discovery has made one."""
    digest: Mapped[bytes] = mapped_column(LargeBinary(16))
    """Of the document: what has the same one needs no write."""
    ready: Mapped[bool]
    schedulable: Mapped[bool]
    pressed: Mapped[bool]
    """Short of memory, disk or process ids, or without network."""
    cpu_cores: Mapped[float]
    """Allocatable, as the next one."""
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    gpu_count: Mapped[int]
    """Physical devices."""
    gpus_healthy: Mapped[int]
    gpu_model: Mapped[str | None] = mapped_column(String(128))
    """Of the first device."""
    cpu_requested: Mapped[float | None]
    """Cores that its live pods without GPUs ask for; those with GPUs have rows of their own.

    None, as the next two, until all pods were seen.
    """
    memory_requested_bytes: Mapped[int | None] = mapped_column(BigInteger)
    copies: Mapped[dict[str, Any] | None]
    """The part of that which copies of deployments ask for: `[cores, bytes]` by the deployment's id."""


_positions = select(
    InventoryNode.cluster_id,
    InventoryNode.uid.label("node_uid"),
    InventoryNode.name.label("node"),
    InventoryNode.gpu_model,
    func.generate_series(0, InventoryNode.gpu_count - 1).label("position"),
).subquery()


class InventoryGpu(Base):
    """One physical device of a node, by its position there: a query over the nodes, no table of its own."""

    __table__ = select(
        _positions,
        # Compared byte by byte: the same order wherever the database stands.
        (_positions.c.node + "/" + func.lpad(cast(_positions.c.position, String), 5, "0")).collate("C").label("place"),
    ).subquery()
    __mapper_args__ = {"primary_key": [__table__.c.cluster_id, __table__.c.place]}  # noqa: RUF012

    cluster_id: Mapped[UUID]
    node_uid: Mapped[UUID]
    node: Mapped[str]
    gpu_model: Mapped[str | None]
    position: Mapped[int]
    place: Mapped[str]
    """Node and position; sorts a cluster's devices."""


class InventoryGpuPod(Base):
    """One live pod that holds a GPU or asks for one, trimmed to what `pods.read_pod` looks at."""

    __tablename__ = "inventory_gpu_pods"
    __table_args__ = (Index("ix_inventory_gpu_pods_node", "cluster_id", "node"),)

    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    namespace: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(253), primary_key=True)
    uid: Mapped[str] = mapped_column(String(64))
    node: Mapped[str | None] = mapped_column(String(253))
    """None while it waits for one."""
    phase: Mapped[str] = mapped_column(String(16))
    release: Mapped[str | None] = mapped_column(String(63))
    """Value of its label app.kubernetes.io/instance: the Helm release it belongs to."""
    document: Mapped[dict[str, Any]]
    digest: Mapped[bytes] = mapped_column(LargeBinary(16))


class ClusterAddon(Base):
    """One add-on in one cluster."""

    __tablename__ = "cluster_addons"

    cluster_id: Mapped[UUID] = mapped_column(ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[AddonName] = mapped_column(text_enum(AddonName), primary_key=True)
    owner: Mapped[AddonOwner] = mapped_column(text_enum(AddonOwner))
    state: Mapped[AddonState] = mapped_column(text_enum(AddonState))
    release: Mapped[str | None] = mapped_column(String(53))
    namespace: Mapped[str | None] = mapped_column(String(63))
    chart: Mapped[str | None] = mapped_column(String(128))
    """Name and version."""
    detail: Mapped[str | None] = mapped_column(Text)
    """Why it failed, or what is special about it."""
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"), onupdate=text("now()"))
