"""The steps that take a deployment out of its cluster, and look whether anything of it is left."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from pydantic import BaseModel

from budcluster.cluster.access import ClusterAccess, NoCredential
from budcluster.cluster.activities import lines_to
from budcluster.cluster.errors import ClusterNotFound
from budcluster.cluster.verdicts import verdicts
from budcluster.config import DeploymentSettings
from budcluster.deployment.contracts import RemovalPayload
from budcluster.deployment.helm_utils import ReleaseLocks
from budcluster.deployment.leftovers import KINDS, labelled, left_after, remove_secrets
from budcluster.deployment.records import DeploymentFacts, Records
from budcluster.durable.errors import NonRetryableError
from budcluster.durable.execution import Execution
from budcluster.kube.door import Door
from budcluster.kube.errors import CertificateProblem, Unauthorized, Unreachable
from budcluster.kube.helm_errors import ClusterUnreachable, NotReadyInTime
from budcluster.kube.resources import CLAIMS, DEPLOYMENTS
from budcluster.operations.journal import Journals, StepJournal


class ThingsLeft(Exception):
    """Objects of the deployment are still in the cluster; the message names them."""

    next_step = (
        "Something holds them: a node that is lost, or finalizers. Put that right and retry the operation, or forget "
        "them with DELETE /deployments/{id}?force=true."
    )

    def __init__(self, left: Sequence[str]) -> None:
        super().__init__(f"Still in the cluster: {', '.join(left[:20])}")
        self.left = list(left)


_BEYOND_REACH: Final = (
    Unreachable, Unauthorized, CertificateProblem, ClusterUnreachable, NoCredential, ClusterNotFound, NotReadyInTime,
)  # fmt: skip
"""What `force` forgets a deployment for, beside things that do not go."""


class Receipt(BaseModel):
    """What became of the deployment's things."""

    left: list[str] = []
    """What is still in the cluster, or may be."""


Work = Callable[[Door, DeploymentFacts, RemovalPayload], Awaitable[Receipt]]


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
        """Uninstall; a release that is not there is success. Whether all of it goes, the next step looks."""

        async def work(door: Door, facts: DeploymentFacts, _: RemovalPayload) -> Receipt:
            # A cluster that refuses or does not answer is found out while the deployment is still whole.
            await labelled(door, facts, (DEPLOYMENTS,))
            async with self._locks.hold(facts.cluster_id, facts.namespace, facts.release):
                await self._records.withdrew(facts.id)
                timeout_s = self._settings.helm_timeout_s
                await door.helm.remove(facts.release, facts.namespace, timeout_s=timeout_s, wait=False)
            return Receipt()

        await self._step(payload, "remove_release", work)

    async def verify_removal(self, payload: RemovalPayload, _: Execution) -> None:
        """Remove secrets and, unless it is to be kept, the cache; then wait until nothing with our label is left."""

        async def work(door: Door, facts: DeploymentFacts, asked: RemovalPayload) -> Receipt:
            await remove_secrets(door, facts)
            claims = [name for _, name in await labelled(door, facts, (CLAIMS,))]
            if not asked.keep_cache:
                for claim in claims:
                    await door.client.delete(CLAIMS, claim, namespace=facts.namespace)
            kinds = [kind for kind in KINDS if kind is not CLAIMS or not asked.keep_cache]
            if left := await left_after(door, facts, kinds, patience_s=self._settings.removal_timeout_s):
                raise ThingsLeft(left)
            return Receipt(left=[f"{CLAIMS}/{claim}" for claim in claims] if asked.keep_cache else [])

        await self._step(payload, "verify_removal", work, has_begun=True)

    async def _step(self, payload: RemovalPayload, name: str, work: Work, *, has_begun: bool = False) -> None:
        async def act(step: StepJournal) -> Receipt:
            with verdicts():
                if has_begun:
                    # During an update, a replica that does not know this mark may have uninstalled the release.
                    await self._records.withdrew(payload.subject_id)
                receipt = await self._in_cluster(payload, step, work)
            step.percent(99, detail=f"Left: {', '.join(receipt.left)}" if receipt.left else "Nothing is left")
            return receipt

        await self._journals.of(payload).run(name, act, gives=Receipt)

    async def _in_cluster(self, payload: RemovalPayload, step: StepJournal, work: Work) -> Receipt:
        facts = await self._records.facts(payload.subject_id)
        try:
            opened = self._access.open(facts.cluster_id, operation=str(payload.operation_id), on_line=lines_to(step))
            async with opened as door:
                return await work(door, facts, await self._records.as_asked(payload))
        except (*_BEYOND_REACH, ThingsLeft) as error:
            # Asked again: `force` may have come while this was at work.
            if not (await self._records.as_asked(payload)).force:
                if isinstance(error, ThingsLeft):
                    raise NonRetryableError(str(error)) from error
                raise
            release = f"release {facts.release} in namespace {facts.namespace} ({error})"
            left = error.left if isinstance(error, ThingsLeft) else [release]
            step.log(f"May be left in the cluster: {', '.join(left)}")
            return Receipt(left=left)
