"""Routes that change what is known of, or installed on, a cluster's hardware. Those that read are in `routes`."""

from typing import Annotated, Literal, Protocol
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from budcluster.api.dependencies import CurrentActor, Write, provided
from budcluster.api.problems import problems
from budcluster.api.schemas import Answer, Body
from budcluster.api.transaction import TransactionalRoute
from budcluster.hardware.reading.profile import Sharing
from budcluster.kit.database import WriteSession
from budcluster.kit.errors import Conflict, NotFound
from budcluster.operations.errors import OperationBusy


class HardwareWork(Protocol):
    """What the cluster feature does for these routes. Raises its own NotFound and Conflict."""

    async def request_detection(self, session: WriteSession, cluster_id: UUID, *, actor: str) -> UUID:
        """Ask for a fresh look at the hardware; the operation's id."""

    async def request_sharing(
        self, session: WriteSession, cluster_id: UUID, *, mode: Sharing, replicas: int, force: bool, actor: str
    ) -> UUID:
        """Ask for another way of handing out GPUs; the operation's id."""


class HardwareWorkHolder:
    """Carries the implementation that `bootstrap` provides."""

    def __init__(self, work: HardwareWork) -> None:
        self.work = work


Work = Annotated[HardwareWorkHolder, provided(HardwareWorkHolder)]

router = APIRouter(prefix="/clusters/{cluster_id}", tags=["hardware"], route_class=TransactionalRoute)


class SharingChoice(Body):
    """How NVIDIA GPUs are to be handed to pods."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"mode": "hami"}, {"mode": "none", "force": True}]})

    mode: Literal["hami", "time-slicing", "none"] = Field(
        "hami",
        description="`hami`: shares with limits on memory and cores; `time-slicing`: without; `none`: whole GPUs.",
    )
    replicas_per_gpu: int = Field(4, ge=2, le=64, description="Shares of one GPU under time-slicing.")
    force: bool = Field(False, description="Go on although running pods hold GPUs and will break.")


class HardwareOperation(Answer):
    """Long work that was begun on a cluster."""

    cluster_id: UUID
    operation_id: UUID = Field(description="Follow it at `/operations/{operation_id}`.")


@router.post(
    "/detect-hardware",
    status_code=202,
    operation_id="detect_hardware",
    summary="Detect the hardware again",
    responses=problems(NotFound, Conflict, OperationBusy),
)
async def detect_hardware(
    cluster_id: UUID, session: Write, holder: Work, actor: CurrentActor, response: Response
) -> HardwareOperation:
    """Runs Node Feature Discovery and reads the profile anew."""
    operation_id = await holder.work.request_detection(session, cluster_id, actor=actor.name)
    return _accepted(response, cluster_id, operation_id)


@router.post(
    "/install-hami",
    status_code=202,
    operation_id="install_hami",
    summary="Choose how GPUs are shared",
    responses=problems(NotFound, Conflict, OperationBusy),
)
async def install_hami(
    cluster_id: UUID, body: SharingChoice, session: Write, holder: Work, actor: CurrentActor, response: Response
) -> HardwareOperation:
    """Installs HAMi, or takes it away in favour of time-slicing or whole GPUs."""
    operation_id = await holder.work.request_sharing(
        session,
        cluster_id,
        mode=Sharing(body.mode),
        replicas=body.replicas_per_gpu,
        force=body.force,
        actor=actor.name,
    )
    return _accepted(response, cluster_id, operation_id)


def _accepted(response: Response, cluster_id: UUID, operation_id: UUID) -> HardwareOperation:
    response.headers["Location"] = f"/operations/{operation_id}"
    return HardwareOperation(cluster_id=cluster_id, operation_id=operation_id)
