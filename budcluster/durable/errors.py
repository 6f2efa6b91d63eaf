"""What can go wrong with durable work, for those who start it and for activities that give up."""


class NonRetryableError(Exception):
    """Raised by an activity when trying again is useless; the text is public.

    The SDK (1.19.0) recognises it by the name of its class, so neither the name nor a subclass will do instead.
    """


class WorkflowsUnavailable(ConnectionError):
    """The workflow engine did not answer in time. What was asked may or may not have happened: ask again."""


class UnknownInstance(LookupError):
    """No workflow instance has this id."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(f"There is no workflow {instance_id!r}.")
        self.instance_id = instance_id


class InstanceStillRunning(RuntimeError):
    """The instance has not ended, so it cannot be forgotten."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(f"Workflow {instance_id!r} has not ended.")
        self.instance_id = instance_id
