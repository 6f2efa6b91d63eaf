"""Tells of changes of clusters and deployments that no operation made: they are published as operations' events are."""

from typing import Any
from uuid import UUID

from budcluster.kit.database import WriteSession
from budcluster.operations.models import SubjectEvent, SubjectType


async def tell(
    session: WriteSession, subject_type: SubjectType, subject_id: UUID, *, name: str, change: str, facts: dict[str, Any]
) -> None:
    """Write the event in the caller's transaction, which holds the subject's row: so its events come in order.

    `change` is a past verb with its noun, `health_changed`; `facts` are small and hold no secret.
    """
    session.add(
        SubjectEvent(
            subject_type=subject_type,
            subject_id=subject_id,
            change=change,
            data={"id": str(subject_id), "name": name, **facts},
        )
    )
    await session.flush()
