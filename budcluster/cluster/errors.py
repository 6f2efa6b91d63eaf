"""Facts about clusters that callers see as problems."""

from uuid import UUID

from budcluster.cluster.models import ClusterStatus
from budcluster.kit.errors import Conflict, Invalid, NotFound


class ClusterNotFound(NotFound):
    """There is no cluster with this id. It never existed, or it was deleted; `GET /clusters` lists what there is."""

    title = "Cluster not found"

    def __init__(self, cluster_id: UUID) -> None:
        super().__init__("There is no cluster with this id; GET /clusters lists what there is.", cluster_id=cluster_id)


class ClusterNameTaken(Conflict):
    """Another cluster has this name; `cluster_id` is its id. Choose another name, or use that cluster."""

    title = "Cluster name is taken"

    def __init__(self, name: str, cluster_id: UUID) -> None:
        super().__init__(f"A cluster named {name} exists; choose another name, or use that one.", cluster_id=cluster_id)


class ProvisioningNotAvailable(Invalid):
    """New clusters cannot be made in this version, existing ones can be registered: send `"origin": "ADOPTED"`."""

    title = "Provisioning is not available"

    def __init__(self) -> None:
        super().__init__(
            'Making EKS and AKS clusters is not available in this version; register an existing one with "origin": '
            '"ADOPTED".',
            errors=[
                {"in": "body", "pointer": "/origin", "code": "unavailable", "detail": "only ADOPTED is available here"}
            ],
        )


class IllegalClusterMove(Conflict):
    """The cluster's present status does not allow this. Wait for the running operation, or look at its error."""

    title = "The cluster's status does not allow this"

    def __init__(self, present: ClusterStatus, wanted: ClusterStatus, allowed: list[ClusterStatus]) -> None:
        super().__init__(
            f"A cluster that is {present} cannot become {wanted}; wait for its operation to end, then look again.",
            status_now=present,
            allowed_statuses=allowed,
        )
