"""What workflows of operations, their activities and the service tell each other. No I/O: orchestrators import this."""

from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class OperationPayload(BaseModel):
    """What every workflow and activity of an operation gets. Kinds with further facts subclass it."""

    model_config = ConfigDict(frozen=True)

    operation_id: UUID
    subject_id: UUID
    """The cluster or deployment."""
    attempt: int = 1


class Started(BaseModel):
    """Whether the work may go on: False when this attempt was ended or replaced before it began."""

    goes_on: bool


class Ending(OperationPayload):
    """How an operation came to an early end."""

    step: str
    """The step that ended it."""
    type: str
    """Class name of the error."""
    detail: str
    undone: list[str] = []
    """Steps whose work was taken back; a retry does them again."""
    left: list[str] = []
    """Steps whose work could not be taken back: somebody has to look."""


@dataclass(frozen=True)
class StepPlan:
    """One step, as known before anything runs."""

    name: str
    """`verb_object`; the name that activities give to the journal."""
    title: str
    """What a page shows."""
    weight: float = 1.0
    """Its share of the whole, relative to the other steps; its usual seconds serve well."""


class Workflow(Protocol):
    """A workflow's reference, as far as operations need it: `durable.refs.WorkflowRef` is one."""

    @property
    def name(self) -> str: ...

    @property
    def takes(self) -> type[Any]:
        """The Pydantic model of its input."""


class Engine(Protocol):
    """The workflow engine, as far as operations need it."""

    async def start(self, workflow: Any, payload: Any, *, instance_id: str) -> Any:
        """Start an instance. One that exists already is left as it is."""

    async def is_alive(self, instance_id: str) -> bool:
        """Whether the instance exists and has not ended."""

    async def purge(self, instance_id: str) -> Any:
        """Forget an ended instance. An absent one is no error."""
