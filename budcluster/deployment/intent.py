"""What is asked of a deployment, against what there is of it. Pure; refusals are problems."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from budcluster.deployment import capacity
from budcluster.deployment.admission import Description
from budcluster.deployment.errors import ConfigNotUsable, NoCapacity
from budcluster.deployment.fitting.fit import Fit, Verdict
from budcluster.deployment.helm_utils import release_name, slug_of
from budcluster.deployment.models import Deployment, DeploymentRevision, DeploymentStatus
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import Wanted
from budcluster.deployment.schemas import DeploymentChange, DeploymentRequest
from budcluster.deployment.values import CacheMode


def wanted_by(request: DeploymentRequest, known: Description) -> Wanted:
    """A new deployment, with its id and names."""
    deployment_id = uuid4()
    last = request.model.rstrip("/").rpartition("/")[2]
    name = request.name or f"{slug_of(last)[:56].strip('-')}-{deployment_id.hex[:6]}"
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


def require_room(fit: Fit, *, force: bool) -> None:
    """Raises NoCapacity when there is no place for it, unless that is to be tried all the same."""
    if fit.verdict is Verdict.NO and not force:
        raise NoCapacity(capacity.as_facts(fit))


def changed_config(deployment: Deployment, change: DeploymentChange) -> DeploymentConfig | None:
    """The config after the change; None when it stays as it is and nothing is wrong. Raises ConfigNotUsable.

    With a diagnosis, or when it failed, the same config is asked for again: what others did to the release, or a
    deletion took of it, is put right by that.
    """
    if change.config is None:
        return None
    if "replicas" in change.config.model_fields_set:
        raise ConfigNotUsable("replicas", "copies are changed with POST /deployments/{id}/scale")
    if "hub_config" in change.config.model_fields_set:
        raise ConfigNotUsable("model_config", "the model of a deployment does not change; make a new deployment")
    present = DeploymentConfig.model_validate(deployment.config)
    with _refused_by_field():
        wanted = present.changed_by(change.config)
    is_well = deployment.diagnosis is None and deployment.status is not DeploymentStatus.FAILED
    return None if wanted == present and is_well else wanted


def earlier_config(revision: DeploymentRevision, *, replicas: int) -> DeploymentConfig:
    """What a revision was made of, for so many copies. Raises ConfigNotUsable for what is not taken any more."""
    with _refused_by_field():
        return DeploymentConfig.model_validate({**revision.config, "replicas": max(replicas, 1)})


@contextmanager
def _refused_by_field() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        problem = error.errors()[0]
        field = "/".join(str(part) for part in problem["loc"])
        raise ConfigNotUsable(field, problem["msg"].removeprefix("Value error, ")) from None


def is_target(revision: DeploymentRevision, number: int | None, present: int) -> bool:
    """Whether to go back to this one: the number that was asked for, else one that served before the present one."""
    if number is not None:
        return revision.number == number
    return revision.number < present and revision.served_at is not None


def require_same_claim(config: DeploymentConfig, earlier: Sequence[DeploymentRevision]) -> None:
    """A claim that was made keeps its class and access mode: Kubernetes changes neither. Raises ConfigNotUsable."""
    if config.cache.mode is not CacheMode.PVC:
        return
    for revision in earlier:
        made = revision.values["cache"]
        if made["mode"] != CacheMode.PVC.value:
            continue
        if (made["storageClass"], made["accessMode"]) != (config.cache.storage_class, config.cache.access_mode):
            raise ConfigNotUsable(
                "cache",
                f"the deployment's volume exists with storage_class {made['storageClass']} and access_mode "
                f"{made['accessMode']}, which cannot be changed; deploy anew, or name another claim with mode existing",
            )


def payload_of(deployment: Deployment, *, replicas: int, revision: int, force: bool) -> dict[str, Any]:
    """What the operation is told: where to, and what to go back to."""
    return {
        "revision": revision,
        "replicas": replicas,
        "previous_revision": deployment.revision,
        "previous_replicas": deployment.replicas_desired,
        "force": force,
    }
