"""What workflows of deployments and their activities tell each other."""

from budcluster.operations.contracts import OperationPayload


class ReleasePayload(OperationPayload):
    """Work on the release of a deployment; `subject_id` is the deployment."""

    revision: int
    """The revision that is to run."""
    replicas: int = 1
    previous_revision: int = 0
    """What to go back to; 0: there is nothing."""
    previous_replicas: int = 0
    force: bool = False
    """Whether to try although the cluster has no room: a retry asks for room again."""


class RemovalPayload(OperationPayload):
    """The end of a deployment."""

    keep_cache: bool = False
    force: bool = False
    """Forget what cannot be removed: the cluster is out of reach, or something holds what is left."""
