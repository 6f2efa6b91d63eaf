"""What an activity is told about its call. Apart from the runtime, which loads the SDK."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Execution:
    """Which call of an activity this is."""

    instance_id: str
    """The workflow instance."""
    task_execution_id: str
    """The same for all retries and re-deliveries of one call, another for the next call: the idempotency key."""
