"""What tests of long work share: one-line deeds on a real database, and a workflow engine to look into."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from budcluster.kit.database import Database
from budcluster.operations.contracts import OperationPayload, StepPlan
from budcluster.operations.journal import Journals
from budcluster.operations.ledger import Ledger
from budcluster.operations.models import Operation, OperationStatus, OperationStep, StepStatus, SubjectType
from budcluster.operations.services import Operations, Subject

STEPS = (
    StepPlan("apply_terraform", "Create the cluster", weight=3),
    StepPlan("store_kubeconfig", "Keep the credential"),
)


@dataclass(frozen=True)
class DemoWorkflow:
    """A reference as the service sees it."""

    name: str = "demo"
    takes: type[OperationPayload] = OperationPayload


@dataclass
class EngineTwin:
    """Remembers instances as a workflow engine does."""

    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    starts: int = 0
    is_down: bool = False

    async def start(self, workflow: Any, payload: OperationPayload, *, instance_id: str) -> None:
        if self.is_down:
            raise ConnectionError("the engine is away")
        self.starts += 1
        self.instances.setdefault(instance_id, payload.model_dump(mode="json"))

    async def is_alive(self, instance_id: str) -> bool:
        return instance_id in self.instances and instance_id not in self.ended

    async def purge(self, instance_id: str) -> None:
        self.instances.pop(instance_id, None)


@dataclass
class Desk:
    """Does to operations what routes and activities do, in one line each."""

    database: Database
    operations: Operations
    journals: Journals

    async def request(
        self, subject: Subject | None = None, *, kind: str = "provision_cluster", **options: Any
    ) -> Operation:
        plan = {"steps": STEPS, "workflow": DemoWorkflow(), "actor": "token:ada", **options}
        async with self.database.writing() as session:
            return await self.operations.request(session, kind=kind, subject=subject or cluster(), **plan)

    async def cancel(self, operation_id: UUID) -> Operation:
        async with self.database.writing() as session:
            return await self.operations.cancel(session, operation_id)

    async def retry(self, operation_id: UUID) -> Operation:
        async with self.database.writing() as session:
            return await self.operations.retry(session, operation_id)

    async def finish(
        self, operation_id: UUID, status: OperationStatus = OperationStatus.SUCCEEDED, **facts: Any
    ) -> None:
        async with self.database.writing() as session:
            ledger = await Ledger.open(session, operation_id)
            await self.operations.finish(ledger, session, status, **facts)

    async def mark(self, operation_id: UUID, step: str, status: StepStatus, **facts: Any) -> None:
        async with self.database.writing() as session:
            ledger = await Ledger.open(session, operation_id)
            await ledger.change_step(step, status=status, **facts)

    async def look(self, operation_id: UUID) -> tuple[Operation, dict[str, OperationStep]]:
        async with self.database.reading() as session:
            operation, steps = await self.operations.get(session, operation_id)
        return operation, {step.name: step for step in steps}


def cluster(name: str = "berlin-lab") -> Subject:
    """A cluster nobody has worked on yet."""
    return Subject(SubjectType.CLUSTER, uuid4(), name)


def payload_of(operation: Operation) -> OperationPayload:
    """What the activities of an operation's present attempt get."""
    return OperationPayload(operation_id=operation.id, subject_id=operation.subject_id, attempt=operation.attempt)


async def eventually(seen: Callable[[], Awaitable[bool]], *, within_s: float = 30) -> None:
    """Wait for an effect; fail when it does not come."""
    async with asyncio.timeout(within_s):
        while not await seen():  # noqa: ASYNC110 - effects in a database or another task have no event to wait for
            await asyncio.sleep(0.02)
