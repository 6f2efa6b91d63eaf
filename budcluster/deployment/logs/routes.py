"""`/deployments/{id}/logs` and `/deployments/{id}/attempts`."""

import re
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from budcluster.api.dependencies import Read, provided
from budcluster.api.paging import Rows
from budcluster.api.problems import problems
from budcluster.api.schemas import Answer, Page
from budcluster.api.sse import MEDIA_TYPE, EventStream
from budcluster.cluster.errors import ClusterNotFound
from budcluster.deployment.errors import DeploymentNotFound
from budcluster.deployment.logs.attempts import Attempts
from budcluster.deployment.logs.cursor import Cursor
from budcluster.deployment.logs.errors import AttemptNotFound, LogQueryRefused, LogsRefused, LogsUnavailable, NoLogs
from budcluster.deployment.logs.reading import Wanted
from budcluster.deployment.logs.streams import DeploymentLogs, as_events, as_text

Logs = Annotated[DeploymentLogs, provided(DeploymentLogs)]
KeptAttempts = Annotated[Attempts, provided(Attempts)]

router = APIRouter(prefix="/deployments", tags=["deployments"])

_TAIL: Final = 200
_LONGEST_SINCE_S: Final = 10 * 365 * 86_400
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The lines while they are written.",
        "content": {
            "text/plain": {"schema": {"type": "string"}, "example": "INFO: Application startup complete.\n"},
            MEDIA_TYPE: {"schema": {"type": "string"}},
        },
    }
}


class LogQuery(BaseModel):
    """Which lines."""

    model_config = ConfigDict(extra="forbid")

    follow: bool = Field(False, description="Go on with new lines and new pods until the caller hangs up.")
    since: str | None = Field(
        None, max_length=40, description="Only lines after this: seconds ago, or a time (RFC 3339).", examples=["600"]
    )
    tail: int | None = Field(
        None, ge=0, le=100_000_000, description="Last lines of each container: 200, or all when `since` is given."
    )
    previous: bool = Field(False, description="Of the run before the present one, when a container was restarted.")
    container: str | None = Field(None, max_length=63, description="Only this container.")
    pod: str | None = Field(None, max_length=253, description="Only this pod.")
    attempt: UUID | None = Field(None, description="Kept log of this failed run; only `tail` goes with it.")
    timestamps: bool = Field(False, description="Begin each line with its time; events always carry it.")

    def wanted(self, *, resumed: bool) -> Wanted:
        """Raises LogQueryRefused."""
        if self.follow and self.previous:
            raise LogQueryRefused("previous", "A run that has ended cannot be followed; ask for one of the two.")
        since_s, since_time = _since(self.since)
        tail = self.tail if self.tail is not None or self.since or resumed else _TAIL
        return Wanted(self.follow, self.previous, self.pod, self.container, tail, since_s, since_time)


def _since(text: str | None) -> tuple[int | None, str | None]:
    if text is None:
        return None, None
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) and 0 < int(text) <= _LONGEST_SINCE_S:
        return int(text), None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise LogQueryRefused(
            "since", "Give a number of seconds above zero, or a time such as 2026-11-24T10:00:00Z, for `since`."
        )
    return None, moment.isoformat()


@router.get(
    "/{deployment_id}/logs",
    operation_id="read_deployment_logs",
    summary="Read or follow the logs",
    response_class=Response,
    responses={
        **problems(
            DeploymentNotFound, ClusterNotFound, LogsUnavailable, LogsRefused, NoLogs, AttemptNotFound, LogQueryRefused
        ),
        **_ANSWER,
    },
)
async def read_deployment_logs(
    deployment_id: UUID,
    query: Annotated[LogQuery, Query()],
    logs: Logs,
    attempts: KeptAttempts,
    accept: Annotated[str, Header(max_length=1024)] = "",
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=16_384)] = None,
) -> Response:
    """Lines of all pods and containers, or of those that are named, as the cluster has them; secrets are masked.

    Plain text, each line after `[pod/container]` once there is more than one; or server-sent events for
    `Accept: text/event-stream`: `log` with lines, `notice` when the cluster is lost meanwhile, `end`. An event's id is
    a place in all the logs: sent as `Last-Event-ID`, the stream goes on there.
    """
    if query.attempt is not None:
        return PlainTextResponse(_tail_of(await attempts.read(deployment_id, query.attempt), query.tail))
    after = _cursor(last_event_id)
    stream = await logs.open(deployment_id, query.wanted(resumed=bool(after.places)), after=after)
    if MEDIA_TYPE in accept:
        return EventStream(as_events(stream, after=after))
    return LogText(as_text(stream, timestamps=query.timestamps))


class AttemptAnswer(Answer):
    """One run of a container that ended with a failure."""

    id: UUID = Field(description="Read its log with GET /deployments/{id}/logs?attempt=….")
    pod: str = Field(examples=["bud-llama-chat-1a2b3c4d-7d9f8b6c5-x2k9p"])
    container: str = Field(examples=["runtime"])
    restart: int = Field(description="0 for the container's first run.", examples=[0])
    exit_code: int = Field(examples=[1])
    reason: str = Field(examples=["Error"])
    finding: str | None = Field(description="Type of the diagnosis.", examples=["model-gated"])
    started_at: datetime | None
    finished_at: datetime | None
    lines: int = Field(description="Lines that were kept.", examples=[120])


@router.get(
    "/{deployment_id}/attempts",
    operation_id="list_deployment_attempts",
    summary="List failed runs whose logs were kept",
    responses=problems(DeploymentNotFound),
)
async def list_deployment_attempts(deployment_id: UUID, session: Read, attempts: KeptAttempts) -> Page[AttemptAnswer]:
    """The last 20, newest first. They stay when their pods are gone, until the deployment is deleted."""
    found = await attempts.list(session, deployment_id)
    return Page[AttemptAnswer].model_validate(Rows(found, None))


def _tail_of(text: str, lines: int | None) -> str:
    kept = text.splitlines()
    if lines is not None:
        kept = kept[len(kept) - min(lines, len(kept)) :]
    return "".join(f"{line}\n" for line in kept)


def _cursor(text: str | None) -> Cursor:
    if not text:
        return Cursor()
    try:
        return Cursor.parse(text)
    except ValueError:
        raise LogQueryRefused(
            "Last-Event-ID", "This is not an id of this stream; leave it out to begin anew.", where="header"
        ) from None


class LogText(StreamingResponse):
    """Lines as they come. The generator is closed when the client goes away."""

    media_type = "text/plain"

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        self._lines = lines
        super().__init__(lines, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._lines.aclose()
