"""The steps that take a deployment out of its cluster, and look whether anything of it is left."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from pydantic import BaseModel

from budcluster.cluster.access import ClusterAccess, NoCredential
from budcluster.cluster.activities import lines_to
from budcluster.cluster.errors import ClusterNotFound
from budcluster.cluster.verdicts import verdicts
from budcluster.config import DeploymentSettings
from budcluster.deployment.activities import remove_secrets
from budcluster.deployment.contracts import RemovalPayload
from budcluster.deployment.helm_utils import ReleaseLocks
from budcluster.deployment.records import DeploymentFacts, Records
from budcluster.deployment.rollout import DEPLOYMENTS
from budcluster.deployment.values import LABEL_DEPLOYMENT
from budcluster.durable.execution import Execution
from budcluster.kube.door import Door
from budcluster.kube.errors import CertificateProblem, NotFound, Unauthorized, Unreachable
from budcluster.kube.helm import ClusterUnreachable
from budcluster.kube.resources import CLAIMS, PODS, REPLICA_SETS, SECRETS, SERVICES, Resource
from budcluster.operations.journal import Journals, StepJournal

_LOST: Final = (Unreachable, Unauthorized, CertificateProblem, ClusterUnreachable, NoCredential, ClusterNotFound)
_KINDS: Final = (
    DEPLOYMENTS, REPLICA_SETS, PODS, SERVICES, SECRETS, CLAIMS, Resource("", "v1", "configmaps"),
    Resource("policy", "v1", "poddisruptionbudgets"), Resource("networking.k8s.io", "v1", "ingresses"),
    Resource("networking.k8s.io", "v1", "networkpolicies"), Resource("monitoring.coreos.com", "v1", "podmonitors"),
)  # fmt: skip
_PATIENCE_S: Final = 180.0
_LOOK_EVERY_S: Final = 1.0


class ThingsLeft(Exception):
    """Objects of the deployment are still in the cluster; the message names them."""

    next_step = "Retry the operation; if they stay, something holds them: look at their finalizers."


class Receipt(BaseModel):
    """What became of the deployment's things."""

    left: list[str] = []


Work = Callable[[Door, DeploymentFacts, StepJournal], Awaitable[Receipt]]


class RemovalActivities:
    """Deleting a deployment."""

    def __init__(
        self,
        records: Records,
        access: ClusterAccess,
        journals: Journals,
        locks: ReleaseLocks,
        settings: DeploymentSettings,
    ) -> None:
        self._records = records
        self._access = access
        self._journals = journals
        self._locks = locks
        self._settings = settings

    async def remove_release(self, payload: RemovalPayload, _: Execution) -> None:
        """Uninstall; a release that is not there is success."""

        async def work(door: Door, facts: DeploymentFacts, _: StepJournal) -> Receipt:
            async with self._locks.hold(facts.cluster_id, facts.namespace, facts.release):
                await door.helm.remove(facts.release, facts.namespace, timeout_s=self._settings.helm_timeout_s)
            return Receipt()

        await self._step(payload, "remove_release", work)

    async def verify_removal(self, payload: RemovalPayload, _: Execution) -> None:
        """Remove secrets and, unless it is to be kept, the cache; then wait until nothing with our label is left."""

        async def work(door: Door, facts: DeploymentFacts, step: StepJournal) -> Receipt:
            await remove_secrets(door, facts)
            claims = [name for kind, name in await _labelled(door, facts, (CLAIMS,))]
            if not payload.keep_cache:
                for claim in claims:
                    await door.client.delete(CLAIMS, claim, namespace=facts.namespace)
            kinds = tuple(kind for kind in _KINDS if kind is not CLAIMS or not payload.keep_cache)
            await _until_gone(door, facts, kinds)
            kept = [f"{CLAIMS}/{claim}" for claim in claims] if payload.keep_cache else []
            step.percent(99, detail=f"Kept: {', '.join(kept)}" if kept else "Nothing is left")
            return Receipt(left=kept)

        await self._step(payload, "verify_removal", work)

    async def _step(self, payload: RemovalPayload, name: str, work: Work) -> None:
        async def act(step: StepJournal) -> Receipt:
            with verdicts():
                return await self._in_cluster(payload, step, work)

        await self._journals.of(payload).run(name, act, gives=Receipt)

    async def _in_cluster(self, payload: RemovalPayload, step: StepJournal, work: Work) -> Receipt:
        facts = await self._records.facts(payload.subject_id)
        try:
            opened = self._access.open(facts.cluster_id, operation=str(payload.operation_id), on_line=lines_to(step))
            async with opened as door:
                return await work(door, facts, step)
        except _LOST as error:
            if not payload.force:
                raise
            left = f"release {facts.release} in namespace {facts.namespace} ({error})"
            step.log(f"May be left in the cluster: {left}")
            return Receipt(left=[left])


async def _until_gone(door: Door, facts: DeploymentFacts, kinds: tuple[Resource, ...]) -> None:
    deadline = asyncio.get_running_loop().time() + _PATIENCE_S
    while left := await _labelled(door, facts, kinds):
        if asyncio.get_running_loop().time() >= deadline:
            raise ThingsLeft("Still in the cluster: " + ", ".join(f"{kind}/{name}" for kind, name in left[:20]))
        await asyncio.sleep(_LOOK_EVERY_S)


async def _labelled(door: Door, facts: DeploymentFacts, kinds: tuple[Resource, ...]) -> list[tuple[Resource, str]]:
    found = []
    for kind in kinds:
        try:
            pages = door.client.list_pages(
                kind, namespace=facts.namespace, label_selector=f"{LABEL_DEPLOYMENT}={facts.id}"
            )
            found += [(kind, item["metadata"]["name"]) async for page in pages for item in page.get("items") or ()]
        except NotFound:
            continue  # the cluster does not know the kind
    return found
