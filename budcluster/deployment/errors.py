"""Facts about deployments that callers see as problems."""

from uuid import UUID

from budcluster.kit.errors import NotFound


class DeploymentNotFound(NotFound):
    """There is no deployment with this id. It never existed or was deleted; `GET /deployments` lists what exists."""

    title = "Deployment not found"

    def __init__(self, deployment_id: UUID) -> None:
        super().__init__(
            "There is no deployment with this id; GET /deployments lists what there is.", deployment_id=deployment_id
        )
