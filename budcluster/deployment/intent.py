"""What is asked of a deployment, against what there is of it. Pure; refusals are problems."""

from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from budcluster.deployment import capacity
from budcluster.deployment.admission import Decision, Description
from budcluster.deployment.errors import ConfigNotUsable, NoCapacity
from budcluster.deployment.fit import Verdict
from budcluster.deployment.helm_utils import release_name, slug_of
from budcluster.deployment.models import Deployment, DeploymentRevision
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import Wanted
from budcluster.deployment.schemas import DeploymentChange, DeploymentRequest


def wanted_by(request: DeploymentRequest, known: Description) -> Wanted:
    """A new deployment, with its id and names."""
    deployment_id = uuid4()
    last = request.model.rstrip("/").rpartition("/")[2]
    name = request.name or f"{slug_of(last)[:56].strip('-')}-{deployment_id.hex[:4]}"
    return Wanted(
        id=deployment_id,
        name=name,
        release=release_name(name, deployment_id),
        model=request.model,
        runtime=request.runtime_type(),
        config=request.config,
        facts=known.facts,
    )


def present_of(deployment: Deployment) -> Wanted:
    """The deployment as it is meant to run now."""
    return Wanted(
        id=deployment.id,
        name=deployment.name,
        release=deployment.helm_release,
        model=deployment.model,
        runtime=deployment.runtime,
        config=DeploymentConfig.model_validate(deployment.config),
        facts=capacity.facts_of(deployment),
    )


def require_room(decision: Decision, *, force: bool) -> None:
    """Raises NoCapacity when there is no place for it, unless that is to be tried all the same."""
    if decision.fit.verdict is Verdict.NO and not force:
        raise NoCapacity(capacity.as_facts(decision.fit))


def changed_config(deployment: Deployment, change: DeploymentChange) -> DeploymentConfig | None:
    """The config after the change; None when it stays as it is and nothing is wrong. Raises ConfigNotUsable.

    With a diagnosis the same config is asked for again: what others did to the release is put right by that.
    """
    if change.config is None:
        return None
    if "replicas" in change.config.model_fields_set:
        raise ConfigNotUsable("replicas", "copies are changed with POST /deployments/{id}/scale")
    if "hub_config" in change.config.model_fields_set:
        raise ConfigNotUsable("model_config", "the model of a deployment does not change; make a new deployment")
    present = DeploymentConfig.model_validate(deployment.config)
    try:
        wanted = present.changed_by(change.config)
    except ValidationError as error:
        problem = error.errors()[0]
        field = "/".join(str(part) for part in problem["loc"])
        raise ConfigNotUsable(field, problem["msg"].removeprefix("Value error, ")) from None
    return None if wanted == present and deployment.diagnosis is None else wanted


def grows(deployment: Deployment, config: DeploymentConfig) -> bool:
    """Whether a copy needs other or more devices than now."""
    present = DeploymentConfig.model_validate(deployment.config)
    names = ("tensor_parallel_size", "pipeline_parallel_size", "gpu_model", "gpu_share", "hardware")
    return any(getattr(present, name) != getattr(config, name) for name in names)


def is_target(revision: DeploymentRevision, number: int | None, present: int) -> bool:
    """Whether to go back to this one: the number that was asked for, else one that served before the present one."""
    if number is not None:
        return revision.number == number
    return revision.number < present and revision.served_at is not None


def payload_of(deployment: Deployment, *, replicas: int, revision: int, force: bool) -> dict[str, Any]:
    """What the operation is told: where to, and what to go back to."""
    return {
        "revision": revision,
        "replicas": replicas,
        "previous_revision": deployment.revision,
        "previous_replicas": deployment.replicas_desired,
        "force": force,
    }
