"""What is decided before anything is created: which model this is, whether it fits, and what its values are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import select

from budcluster.cluster.errors import ClusterNotFound, ClusterNotReady
from budcluster.cluster.models import Cluster, ClusterStatus
from budcluster.config import DeploymentSettings, ModelHubSettings
from budcluster.credentials.models import Credential, CredentialPurpose
from budcluster.credentials.services import CredentialService
from budcluster.deployment import capacity
from budcluster.deployment.capacity import Capacity, Prospect
from budcluster.deployment.errors import ConfigNotUsable
from budcluster.deployment.fitting.demands import AnyDemand, Demand, ProcessorDemand
from budcluster.deployment.fitting.fit import Fit, Verdict
from budcluster.deployment.fitting.model_facts import ModelFacts, UnusableConfig, read_config
from budcluster.deployment.fitting.placing import refusals
from budcluster.deployment.model_hub import ModelHub
from budcluster.deployment.models import Deployment, DeploymentRevision, RuntimeType
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import (
    Placement,
    Site,
    Surroundings,
    Wanted,
    context_of,
    demand_of,
    holds_one_node,
    require_sound,
    runtime_of,
    values_of,
)
from budcluster.deployment.succession import Chances, chances_of, choose_rollout, is_no_larger
from budcluster.deployment.values import Rollout, in_their_places, surges
from budcluster.kit.database import ReadSession

_ENV_PURPOSES: Final = frozenset({CredentialPurpose.HUGGING_FACE, CredentialPurpose.AWS, CredentialPurpose.AZURE})


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of a model."""

    facts: ModelFacts | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What will be done with a request."""

    fit: Fit
    runtime: RuntimeType
    values: dict[str, Any]
    max_model_len: int
    warnings: tuple[str, ...]


class Admission:
    """Looks at requests. Reads only."""

    def __init__(
        self,
        hub: ModelHub,
        credentials: CredentialService,
        settings: DeploymentSettings,
        hub_settings: ModelHubSettings,
    ) -> None:
        self._hub = hub
        self._credentials = credentials
        self._settings = settings
        self._capacity = Capacity(settings.namespace)
        self._surroundings = Surroundings(
            network_policy=settings.network_policy,
            ingress_class=settings.ingress_class,
            ingress_tls=settings.ingress_tls,
            ingress_tls_secret=settings.ingress_tls_secret,
            hub_mirror=hub_settings.mirror_for_pods,
        )

    async def describe(self, model: str, config: DeploymentConfig, *, actor: str) -> Description:
        """The model, from the caller or from the hub. Opens sessions of its own: call it before using another one.

        Raises ConfigNotUsable, and what opening the Hugging Face credential raises.
        """
        if config.hub_config is not None:
            try:
                return Description(read_config(config.hub_config))
            except UnusableConfig as error:
                raise ConfigNotUsable("model_config", str(error)) from None
        token = None
        if config.hugging_face_credential_id is not None:
            secret = await self._credentials.open_(
                config.hugging_face_credential_id,
                purpose=CredentialPurpose.HUGGING_FACE,
                operation=f"describe-model-{uuid4()}",
                actor=actor,
            )
            token = token_of(secret.reveal())
        answer = await self._hub.describe(model, revision=config.revision, token=token)
        return Description(answer.facts, (answer.problem,) if answer.problem else ())

    async def ready_cluster(self, session: ReadSession, cluster_id: UUID, *, lock: bool = False) -> Cluster:
        """The cluster, kept from being deleted meanwhile with `lock`. Raises ClusterNotFound, ClusterNotReady."""
        wanted = select(Cluster, Cluster.hardware_profile.is_not(None)).where(Cluster.id == cluster_id)
        found = (await session.execute(wanted.with_for_update(read=True) if lock else wanted)).one_or_none()
        if found is None:
            raise ClusterNotFound(cluster_id)
        cluster, is_detected = found
        if cluster.status is not ClusterStatus.READY or not is_detected:
            raise ClusterNotReady(cluster.name, cluster.status)
        return cluster

    async def require_credentials(self, session: ReadSession, config: DeploymentConfig) -> None:
        """Every credential exists, is for this, and stays until the transaction ends. Raises ConfigNotUsable."""
        wanted = {secret.credential_id: ("secrets", _ENV_PURPOSES) for secret in config.secrets}
        if (hub := config.hugging_face_credential_id) is not None:
            wanted[hub] = ("hugging_face_credential_id", frozenset({CredentialPurpose.HUGGING_FACE}))
        if (registry := config.registry_credential_id) is not None:
            wanted[registry] = ("registry_credential_id", frozenset({CredentialPurpose.REGISTRY}))
        if not wanted:
            return
        rows = select(Credential.id, Credential.purpose).where(Credential.id.in_(wanted))
        held = rows.order_by(Credential.id).with_for_update(read=True, key_share=True)
        found = {row.id: row.purpose for row in await session.execute(held)}
        for credential_id, (field, purposes) in wanted.items():
            if credential_id not in found:
                raise ConfigNotUsable(field, f"there is no credential {credential_id}; GET /credentials lists them")
            if found[credential_id] not in purposes:
                raise ConfigNotUsable(field, f"the credential {credential_id} is for {found[credential_id]}")

    async def decide(self, session: ReadSession, cluster: Cluster, wanted: Wanted) -> Decision:
        """Fit and values of a new deployment. Raises ConfigNotUsable."""
        self._require_allowed_path(wanted.config)
        seen = await self._capacity.prospect(session, cluster)
        wanted, demand = _fixed(wanted, seen.site)
        fit = seen.fit(demand, freed=False)
        rollout = choose_rollout(
            replicas=wanted.config.replicas,
            chances=Chances(beside=0, in_place=True),
            exclusive_cache=holds_one_node(wanted.config),
        )
        return self._decision(wanted, seen.site, fit, rollout)

    async def decide_change(
        self, session: ReadSession, cluster: Cluster, row: Deployment, wanted: Wanted, present: Mapping[str, Any]
    ) -> Decision:
        """Fit and values of another revision, for all copies and with the devices that the old ones give back.

        `present` are the values of the revision before. Raises ConfigNotUsable.
        """
        self._require_allowed_path(wanted.config)
        require_sound(wanted.config, replicas=row.replicas_desired)
        seen = await self._capacity.prospect(session, cluster, own=row)
        wanted, demand = _fixed(wanted, seen.site)
        demand = replace(demand, replicas=row.replicas_desired)
        fit = seen.fit(demand, freed=True)
        old = capacity.demand_in(row, DeploymentConfig.model_validate(row.config), present, seen.site)
        rollout = choose_rollout(
            replicas=row.replicas_desired,
            chances=_chances(seen, demand, old, fit),
            exclusive_cache=holds_one_node(wanted.config),
        )
        decision = self._decision(wanted, seen.site, fit, rollout)
        return replace(decision, values=in_their_places(decision.values, present))

    async def fit_of(
        self, session: ReadSession, cluster: Cluster, row: Deployment, revision: DeploymentRevision, *, replicas: int
    ) -> Fit:
        """Fit of so many copies as a revision starts them, beside those of them that stand.

        Where the copies of another revision stand, they make room for it as its values say.
        """
        seen = await self._capacity.prospect(session, cluster, own=row)
        config = DeploymentConfig.model_validate(revision.config)
        demand = capacity.demand_in(row, config, revision.values, seen.site)
        if isinstance(demand, ProcessorDemand):
            # Which of them stand is not told, so all are looked at, as if they were to come anew.
            return seen.fit(replace(demand, replicas=replicas), freed=True)
        if revision.number == row.revision:
            return seen.fit(replace(demand, replicas=max(0, replicas - len(seen.own))), freed=False)
        fit = seen.fit(replace(demand, replicas=replicas), freed=True)
        if fit.verdict is Verdict.NO or not seen.own or not surges(revision.values):
            return fit
        first = seen.fit(demand, freed=False)
        return first if first.verdict is Verdict.NO else fit

    def _decision(self, wanted: Wanted, site: Site, fit: Fit, rollout: Rollout) -> Decision:
        values = values_of(wanted, site, Placement(rollout, fit.resource, fit.nodes), self._surroundings)
        context = context_of(wanted.config, wanted.facts)
        warnings = (*context.warnings, *fit.warnings)
        runtime = runtime_of(wanted, site)
        return Decision(fit, runtime, values, context.length, warnings)

    def _require_allowed_path(self, config: DeploymentConfig) -> None:
        path, root = config.cache.host_path, self._settings.host_path_root.rstrip("/")
        if path is not None and not path.startswith(f"{root}/"):
            raise ConfigNotUsable("cache/host_path", f"must lie below {root} (DEPLOYMENTS__HOST_PATH_ROOT)")


def _fixed(wanted: Wanted, site: Site) -> tuple[Wanted, AnyDemand]:
    """With its runtime chosen, and what that asks of the cluster. Raises ConfigNotUsable."""
    runtime = runtime_of(wanted, site)
    return replace(wanted, runtime=runtime), demand_of(
        wanted.config, runtime, wanted.facts, site.hardware(wanted.config)
    )


def _chances(seen: Prospect, new: AnyDemand, old: AnyDemand, fit: Fit) -> Chances:
    if isinstance(new, Demand):
        new = replace(new, resource=fit.resource)
        own = seen.own_rooms or [
            room for room in seen.freed if isinstance(old, Demand) and not refusals(old, room, None)
        ]
        beside = seen.beside if seen.own else ()
        return chances_of(new, old, beside=beside, waiting=seen.waiting, own=own)
    one_more = seen.fit(replace(new, replicas=new.replicas + 1), freed=True)
    in_place = is_no_larger(new, old)
    return Chances(beside=int(one_more.verdict is not Verdict.NO and in_place), in_place=in_place)


def token_of(secret: bytes) -> str:
    """The token of a Hugging Face credential."""
    return str(field_of(secret, "token"))


def field_of(secret: bytes, field: str) -> str:
    """One part of a credential. Raises KeyError when it has no such part."""
    return str(json.loads(secret)[field])
