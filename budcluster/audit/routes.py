"""`/audit`."""

from typing import Annotated

from fastapi import APIRouter, Query

from budcluster.api.dependencies import Read, provided
from budcluster.api.errors import InvalidCursor
from budcluster.api.problems import problems
from budcluster.api.schemas import Page
from budcluster.audit.schemas import AuditEventAnswer, AuditQuery
from budcluster.audit.services import AuditService

Audit = Annotated[AuditService, provided(AuditService)]

router = APIRouter(prefix="/audit", tags=["audit"])


@router.get("", operation_id="list_audit_events", summary="Read the audit trail", responses=problems(InvalidCursor))
async def list_audit_events(
    query: Annotated[AuditQuery, Query()], session: Read, audit: Audit
) -> Page[AuditEventAnswer]:
    """Who did what, on what, when and with which outcome; newest first. Rows are only ever added."""
    return Page[AuditEventAnswer].model_validate(await audit.list(session, query))
