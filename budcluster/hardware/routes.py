"""Routes that read what is known of a cluster's hardware. Those that change it are in `changes`."""

from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response

from budcluster.api.dependencies import Read, provided
from budcluster.api.errors import InvalidCursor
from budcluster.api.paging import Rows
from budcluster.api.problems import problems
from budcluster.hardware.errors import HardwareNotDetected
from budcluster.hardware.inventory import Freshness
from budcluster.hardware.schemas import (
    AddonAnswer,
    AddonList,
    GpuPage,
    GpuQuery,
    HardwareAnswer,
    NodePage,
    NodeQuery,
)
from budcluster.hardware.services import HardwareService
from budcluster.kit.errors import NotFound

Hardware = Annotated[HardwareService, provided(HardwareService)]

router = APIRouter(prefix="/clusters/{cluster_id}", tags=["hardware"])


@router.get(
    "/nodes",
    operation_id="list_nodes",
    summary="List the nodes",
    response_model=NodePage,
    responses=problems(NotFound, InvalidCursor),
)
async def list_nodes(
    cluster_id: UUID, query: Annotated[NodeQuery, Query()], session: Read, hardware: Hardware
) -> Response:
    """What each node has and what is free there, as of `as_of`; the cluster itself is not asked."""
    rows, fresh = await hardware.nodes(session, cluster_id, query)
    return _page(rows, fresh)


@router.get(
    "/gpus",
    operation_id="list_gpus",
    summary="List the GPUs",
    response_model=GpuPage,
    responses=problems(NotFound, InvalidCursor),
)
async def list_gpus(
    cluster_id: UUID, query: Annotated[GpuQuery, Query()], session: Read, hardware: Hardware
) -> Response:
    """Each physical device, with its pods where the cluster tells them. Nodes that take no pods have nothing free."""
    rows, fresh = await hardware.gpus(session, cluster_id, query)
    return _page(rows, fresh)


@router.get(
    "/hardware",
    operation_id="get_hardware",
    summary="Look at the hardware",
    responses=problems(NotFound, HardwareNotDetected),
)
async def get_hardware(cluster_id: UUID, session: Read, hardware: Hardware) -> HardwareAnswer:
    """What was detected, and what is there and free now."""
    detected, live, fresh = await hardware.hardware(session, cluster_id)
    return HardwareAnswer.model_validate(
        {
            "cluster_id": cluster_id,
            "detected_at": detected.at,
            "detected": detected.summary,
            "gaps": detected.gaps,
            "now": live,
            **_fresh(fresh),
        }
    )


@router.get("/addons", operation_id="list_addons", summary="List the add-ons", responses=problems(NotFound))
async def list_addons(cluster_id: UUID, session: Read, hardware: Hardware) -> AddonList:
    """What is installed in the cluster for GPUs and measurements, and by whom."""
    addons = await hardware.addons(session, cluster_id)
    return AddonList(items=[AddonAnswer.model_validate(addon) for addon in addons])


def _page(rows: Rows[Any], fresh: Freshness) -> Response:
    # Straight to JSON: validating what is ours anew would double the time of a page.
    body = {"items": rows.items, "next_cursor": rows.next_cursor, **_fresh(fresh)}
    return Response(orjson.dumps(body), media_type="application/json")


def _fresh(fresh: Freshness) -> dict[str, Any]:
    return {"as_of": fresh.as_of, "stale_because": fresh.problem}
