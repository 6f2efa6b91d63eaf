"""What the operations' routes take and answer."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from budcluster.api.paging import PageQuery
from budcluster.api.schemas import Answer
from budcluster.operations.models import OperationStatus, StepStatus, SubjectType


class OperationQuery(PageQuery):
    """Filters of `GET /operations`."""

    kind: list[Annotated[str, Field(max_length=64)]] | None = Field(
        None, max_length=16, description="For example `provision_cluster`."
    )
    status: list[OperationStatus] | None = Field(None, max_length=8)
    subject_type: SubjectType | None = None
    subject_id: UUID | None = Field(None, description="Id of a cluster or deployment.")
    sort: Literal["created_at", "-created_at"] = "-created_at"


class LogQuery(BaseModel):
    """Paging of log lines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(200, ge=1, le=1000, description="Lines on a page.")
    cursor: str | None = Field(None, max_length=20, pattern="^[0-9]+$", description="`next_cursor` of the page before.")
    step: str | None = Field(None, max_length=64, description="Only lines of this step.")


class OperationError(Answer):
    """Why it failed."""

    type: str = Field(description="Stable name of the cause.", examples=["quota-exceeded"])
    detail: str
    next_step: str = Field(description="What to do about it.")
    step: str | None = None


class SubjectAnswer(Answer):
    """What an operation works on."""

    type: SubjectType
    id: UUID
    name: str


class StepAnswer(Answer):
    """One step."""

    name: str = Field(examples=["apply_terraform"])
    title: str = Field(examples=["Create the cluster"])
    position: int
    status: StepStatus
    percent: int = Field(ge=0, le=100)
    detail: str | None = Field(description="What happens just now, in a few words.")
    error: OperationError | None = Field(description="The latest trouble; it may have been overcome.")
    expected_seconds: float | None = Field(description="Median of earlier runs; null when it never ran.")
    started_at: datetime | None
    finished_at: datetime | None


class OperationAnswer(Answer):
    """One piece of long work, without its steps."""

    id: UUID
    kind: str = Field(examples=["provision_cluster"])
    subject: SubjectAnswer
    status: OperationStatus
    attempt: int = Field(ge=1)
    percent: int = Field(ge=0, le=100)
    current_step: str | None
    eta: datetime | None = Field(
        description="Probable end, from earlier runs or the pace of this one; null if unknown."
    )
    cancelable: bool
    retryable: bool = Field(
        description="Whether a retry would go on with it once it has failed: false when newer work was asked for since."
    )
    error: OperationError | None
    result: dict[str, Any] | None = Field(
        description="What came out; after a failure, what was undone and what is left."
    )
    actor: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class OperationDetail(OperationAnswer):
    """One piece of long work with all its steps in order."""

    steps: list[StepAnswer]


class LogLine(Answer):
    """One line that a tool printed, without secrets."""

    number: int
    step: str
    at: datetime
    text: str
