"""What the audit trail looks like from outside."""

from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from budcluster.api.paging import PageQuery
from budcluster.api.schemas import Answer


class AuditEventAnswer(Answer):
    """One thing that somebody did or tried."""

    id: UUID
    at: AwareDatetime
    actor: str = Field(description="`token:<name>`, `app:<app id>`, `system` or `anonymous`.", examples=["token:ci"])
    action: str = Field(examples=["credential.registered"])
    subject_type: str = Field(examples=["credential"])
    subject_id: UUID | None
    subject_name: str | None = Field(description="Kept because the subject may be gone.", examples=["registry-eu"])
    outcome: str = Field(description="`succeeded`, `refused` or `failed`.", examples=["succeeded"])
    request_id: str | None = Field(description="The request that caused it, as in the log.")
    facts: dict[str, Any] = Field(examples=[{"purpose": "REGISTRY"}])


class AuditQuery(PageQuery):
    """What to list."""

    actor: str | None = Field(None, max_length=253, description="Only what this actor did.")
    action: str | None = Field(None, max_length=64, description="Only this action.")
    subject_type: str | None = Field(None, max_length=32, description="Only on this kind of thing.")
    subject_id: UUID | None = Field(None, description="Only on this one.")
    outcome: Literal["succeeded", "refused", "failed"] | None = Field(None, description="Only with this outcome.")
    request_id: str | None = Field(None, max_length=64, description="Only what this request caused.")
    since: AwareDatetime | None = Field(None, description="Only at or after this time (RFC 3339 with an offset).")
    until: AwareDatetime | None = Field(None, description="Only before this time.")
    sort: Literal["at", "-at"] = Field("-at", description="`-at` is newest first.")
