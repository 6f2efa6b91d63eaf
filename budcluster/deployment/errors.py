"""Facts about deployments that callers see as problems."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from budcluster.deployment.models import DeploymentStatus
from budcluster.kit.errors import Conflict, Invalid, NotFound


class DeploymentNotFound(NotFound):
    """There is no deployment with this id. It never existed or was deleted; `GET /deployments` lists what exists."""

    title = "Deployment not found"

    def __init__(self, deployment_id: UUID) -> None:
        super().__init__(
            "There is no deployment with this id; GET /deployments lists what there is.", deployment_id=deployment_id
        )


class DeploymentNameTaken(Conflict):
    """Another deployment of this cluster has this name; `deployment_id` is its id. Choose another name, or none."""

    title = "Deployment name is taken"

    def __init__(self, name: str, deployment_id: UUID) -> None:
        super().__init__(
            f"The cluster has a deployment named {name}; choose another name, or leave it out to get one.",
            deployment_id=deployment_id,
        )


class IngressHostTaken(Conflict):
    """Another deployment of this cluster answers at this host name; `deployment_id` is its id. Choose another one."""

    title = "Ingress host is taken"

    def __init__(self, host: str, deployment_id: UUID) -> None:
        super().__init__(
            f"Another deployment of the cluster answers at {host}; choose another ingress_host.",
            deployment_id=deployment_id,
        )


class IllegalDeploymentMove(Conflict):
    """The deployment's present status does not allow this. Wait for the running operation, or look at its error."""

    title = "The deployment's status does not allow this"

    def __init__(
        self, present: DeploymentStatus, wanted: DeploymentStatus, allowed: Sequence[DeploymentStatus]
    ) -> None:
        super().__init__(
            f"A deployment that is {present} cannot become {wanted}; wait for its operation to end, then look again.",
            status_now=present,
            allowed_statuses=list(allowed),
        )


class DeploymentIsBeingDeleted(Conflict):
    """The deployment is being deleted; nothing else can be done with it. Make a new one."""

    title = "Deployment is being deleted"

    def __init__(self, name: str) -> None:
        super().__init__(f"The deployment {name} is being deleted; make a new one.")


class DeploymentNeverServed(Conflict):
    """The deployment has not been brought up yet, so there is nothing to change. Retry its operation, or delete it."""

    title = "Deployment was never brought up"

    def __init__(self, name: str, status: DeploymentStatus) -> None:
        super().__init__(
            f"The deployment {name} is {status} and has never served; retry its operation, or delete it.",
            status_now=status,
        )


class NoCapacity(Conflict):
    """The cluster has no place for it now. `reasons` say why, pool by pool, and `nearest` what would fit instead.

    `force=true` tries all the same: the pods then wait until there is room, as long as the startup timeout allows.
    """

    title = "The cluster has no place for this deployment"

    def __init__(self, fit: dict[str, Any]) -> None:
        nearest = f" Nearest: {'; '.join(fit['nearest'])}." if fit["nearest"] else ""
        why = "; ".join(f"{pool['pool']}: {', '.join(pool['reasons'])}" for pool in fit["reasons"]) or "it has no GPUs"
        super().__init__(
            f"The cluster has no place for this deployment now: {why[:1500]}.{nearest[:400]} "
            "Add force=true to try all the same.",
            **fit,
        )


class ConfigNotUsable(Invalid):
    """The runtime cannot be started like this. `errors` names the field and the reason."""

    title = "Configuration cannot be used"

    def __init__(self, field: str, sentence: str) -> None:
        """`field` is a key of the config, or another field of the body with a slash before it."""
        pointer = field if field.startswith("/") else f"/config/{field}"
        super().__init__(
            f"{sentence[0].upper()}{sentence[1:].removesuffix('.')}.",
            errors=[{"in": "body", "pointer": pointer, "code": "unusable", "detail": sentence}],
        )


class RevisionNotFound(NotFound):
    """The deployment has no such revision; `GET /deployments/{id}/revisions` lists them."""

    title = "Revision not found"

    def __init__(self, number: int | None) -> None:
        which = "no earlier revision that served" if number is None else f"no revision {number}"
        super().__init__(f"The deployment has {which}; GET /deployments/{{id}}/revisions lists what there is.")
