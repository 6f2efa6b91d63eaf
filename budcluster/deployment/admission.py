"""What is decided before anything is created: which model this is, whether it fits, and what its values are."""

import json
from collections.abc import Sequence
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
from budcluster.deployment.errors import ConfigNotUsable
from budcluster.deployment.fit import Demand, Fit
from budcluster.deployment.model_facts import ModelFacts, UnusableConfig, read_config
from budcluster.deployment.model_hub import ModelHub
from budcluster.deployment.models import RuntimeType
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import Site, Wanted, context_of, demand_of, room_for_one_more, runtime_of, values_of
from budcluster.deployment.values import CacheMode, choose_rollout
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
        self._hub_settings = hub_settings

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
        cluster = await session.get(Cluster, cluster_id, with_for_update={"read": True} if lock else None)
        if cluster is None:
            raise ClusterNotFound(cluster_id)
        is_detected = select(Cluster.hardware_profile.is_not(None)).where(Cluster.id == cluster_id)
        if cluster.status is not ClusterStatus.READY or not await session.scalar(is_detected):
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

    async def decide(
        self, session: ReadSession, cluster: Cluster, wanted: Wanted, *, copies: int, own: UUID | None = None
    ) -> Decision:
        """Fit of so many more copies, and the values. `own` is left out of those that wait. Raises ConfigNotUsable."""
        self._require_allowed_path(wanted.config)
        seen = await capacity.look(session, cluster, self._settings.namespace)
        site = seen.site
        waiting = await capacity.waiting_on(session, cluster.id, seen, but=own)
        config, runtime = wanted.config, runtime_of(wanted, site)
        wanted = replace(wanted, runtime=runtime)
        values = self.values(wanted, site, surge=own is not None and self._has_room(wanted, runtime, site, waiting))
        context = context_of(config, wanted.facts)
        fit = capacity.decide(config, runtime, wanted.facts, site, replicas=copies, waiting=waiting)
        warnings = (*context.warnings, *fit.warnings)
        return Decision(fit, runtime, values, context.length, warnings)

    def values(self, wanted: Wanted, site: Site, *, surge: bool) -> dict[str, Any]:
        """The chart's values, with the rollout that cannot wait for ever. Raises ConfigNotUsable."""
        config = wanted.config
        exclusive = config.cache.mode in {CacheMode.PVC, CacheMode.EXISTING}
        exclusive = exclusive and config.cache.access_mode == "ReadWriteOnce"
        return values_of(
            wanted,
            site,
            rollout=choose_rollout(replicas=config.replicas, room_for_one_more=surge, exclusive_cache=exclusive),
            network_policy=self._settings.network_policy,
            ingress_class=self._settings.ingress_class,
            hub_mirror=self._hub_settings.mirror_for_pods,
        )

    def _has_room(self, wanted: Wanted, runtime: RuntimeType, site: Site, waiting: Sequence[Demand]) -> bool:
        demand = demand_of(wanted.config, runtime, wanted.facts, site)
        return room_for_one_more(demand, site.rooms, waiting)

    def _require_allowed_path(self, config: DeploymentConfig) -> None:
        path, root = config.cache.host_path, self._settings.host_path_root.rstrip("/")
        if path is not None and not path.startswith(f"{root}/"):
            raise ConfigNotUsable("cache/host_path", f"must lie below {root} (DEPLOYMENTS__HOST_PATH_ROOT)")


def token_of(secret: bytes) -> str:
    """The token of a Hugging Face credential."""
    return str(field_of(secret, "token"))


def field_of(secret: bytes, field: str) -> str:
    """One part of a credential. Raises KeyError when it has no such part."""
    return str(json.loads(secret)[field])
