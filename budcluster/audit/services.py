"""Writing and reading the audit trail."""

from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from budcluster.api.context import request_id
from budcluster.api.paging import Listing, Rows
from budcluster.audit.models import AuditEvent
from budcluster.audit.schemas import AuditQuery
from budcluster.kit.database import ReadSession, WriteSession

SYSTEM: Final = "system"
"""The actor where the service acts by itself."""


class Outcome(StrEnum):
    """How it ended."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    FAILED = "failed"


_LISTING = Listing(
    AuditEvent,
    key=AuditEvent.id,
    sorts={"at": AuditEvent.at},
    filters={
        "actor": AuditEvent.actor,
        "action": AuditEvent.action,
        "subject_type": AuditEvent.subject_type,
        "subject_id": AuditEvent.subject_id,
        "outcome": AuditEvent.outcome,
        "request_id": AuditEvent.request_id,
    },
)


async def record(
    session: WriteSession,
    *,
    actor: str,
    action: str,
    subject_type: str,
    subject_id: UUID | None = None,
    subject_name: str | None = None,
    outcome: Outcome = Outcome.SUCCEEDED,
    facts: dict[str, Any] | None = None,
    once: str | None = None,
) -> bool:
    """Write one event in the caller's transaction, so that it stands exactly when the act does.

    `action` is `noun.past_verb`; `facts` are small and hold no secret. With `once`, a second event under the same key
    is not written; False says so.
    """
    row = {
        "id": uuid4(),
        "actor": actor,
        "action": action,
        "subject_type": subject_type,
        "subject_id": subject_id,
        "subject_name": subject_name,
        "outcome": outcome.value,
        "request_id": request_id(),
        "facts": facts or {},
        "once": once,
    }
    written = insert(AuditEvent).values(row).on_conflict_do_nothing(index_elements=["once"]).returning(AuditEvent.id)
    return (await session.scalar(written)) is not None


class AuditService:
    """Looking at the trail."""

    async def list(self, session: ReadSession, query: AuditQuery) -> Rows[AuditEvent]:
        """One page. Raises InvalidCursor."""
        chosen = select(AuditEvent)
        if query.since is not None:
            chosen = chosen.where(AuditEvent.at >= query.since)
        if query.until is not None:
            chosen = chosen.where(AuditEvent.at < query.until)
        return await _LISTING.page(session, query, chosen)
