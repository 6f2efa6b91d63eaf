"""Leaving a cluster: what the service brought is taken away in reverse order, then the row goes.

A cluster that lives must be clean before it is forgotten: what cannot be removed fails the operation, and repeating it
goes on. One that is dead, after some patience, is forgotten all the same; the operation then says what may be left.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from uuid import UUID

from pydantic import BaseModel

from budcluster.cluster.access import ClusterAccess, NoCredential
from budcluster.cluster.activities import lines_to
from budcluster.cluster.addon_steps import AddonSteps
from budcluster.cluster.errors import AnotherCluster, ClusterNotFound
from budcluster.cluster.models import Cluster
from budcluster.cluster.verdicts import verdicts
from budcluster.credentials.errors import SealedSecretRefused
from budcluster.durable.execution import Execution
from budcluster.hardware import hami, installer
from budcluster.hardware.addons import Addon
from budcluster.hardware.catalogue import Catalogue
from budcluster.hardware.models import AddonName, AddonOwner
from budcluster.hardware.namespaces import is_ours, remove_namespace
from budcluster.kit.database import Database
from budcluster.kube.client import ClusterClient
from budcluster.kube.door import Door
from budcluster.kube.errors import (
    AddressRefused,
    CertificateProblem,
    Forbidden,
    NotFound,
    Unauthorized,
    Unreachable,
)
from budcluster.kube.helm_errors import ClusterUnreachable, CredentialRefused
from budcluster.kube.ownership import SYSTEM_NAMESPACE
from budcluster.kube.refusals import KubeconfigRefused
from budcluster.kube.resources import NAMESPACES, SECRETS
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.journal import Journals, StepJournal
from budcluster.provisioning.adoption import ManagedElsewhere, require_unclaimed, system_uid
from budcluster.provisioning.ansible import onboard

_TIMEOUT_S: Final = 300.0
_PATIENCE_S: Final = 30.0
"""How long a cluster may be silent before it counts as dead: an API server that restarts must not be abandoned."""
_PAUSE_S: Final = 3.0
_DEFINITIONS: Final = "definitions of custom resources (CRDs), since objects of others may depend on them"
_SILENT: Final = (Unreachable, ClusterUnreachable)
_LOST: Final = (
    *_SILENT, AddressRefused, AnotherCluster, CertificateProblem, CredentialRefused, KubeconfigRefused,
    ManagedElsewhere, SealedSecretRefused, Unauthorized,
)  # fmt: skip
"""The cluster is gone, does not know us any more, or is not ours any more: nothing can be done in it."""

ResultT = TypeVar("ResultT")


class Receipt(BaseModel):
    """What became of our things."""

    removed: list[str] = []
    left: list[str] = []
    """What may still be there, and why."""
    kept: list[str] = []
    """What stays on purpose."""

    def keeps(self, what: str) -> None:
        """Add it to what stays, once."""
        if what not in self.kept:
            self.kept.append(what)

    def tells_of(self, name: str) -> bool:
        """Whether it is said what became of a namespace."""
        return any(line.split(",")[0] == f"namespace {name}" for line in (*self.removed, *self.left, *self.kept))


class DeletionActivities:
    """The steps of deleting an adopted cluster."""

    def __init__(
        self,
        database: Database,
        access: ClusterAccess,
        journals: Journals,
        steps: AddonSteps,
        catalogue: Catalogue,
        *,
        models_namespace: str,
    ) -> None:
        self._database = database
        self._access = access
        self._journals = journals
        self._steps = steps
        self._addons = catalogue.last_first
        self._models_namespace = models_namespace

    async def remove_addons(self, payload: OperationPayload, _: Execution) -> None:
        """Uninstall what we installed, and only that; and the namespace of models, which nobody serves any more."""

        async def act(step: StepJournal) -> Receipt:
            receipt = Receipt()
            with verdicts():
                try:
                    await patiently(lambda: self._remove_all(payload, step, receipt))
                except _LOST as error:
                    receipt.left += await self._not_removed(payload, error)
                    if not receipt.tells_of(self._models_namespace):
                        receipt.left.append(self._perhaps_models(error))
            for left in receipt.left:
                step.log(f"May be left in the cluster: {left}")
            step.percent(99, detail=_summary(receipt))
            return receipt

        await self._journals.of(payload).run("remove_addons", act, gives=Receipt)

    async def leave_cluster(self, payload: OperationPayload, _: Execution) -> None:
        """Take away our account, namespace and definitions."""

        async def act(step: StepJournal) -> Receipt:
            try:
                left = await patiently(lambda: self._leave(payload))
            except ClusterNotFound:
                return Receipt()
            except (*_LOST, NoCredential) as error:
                left = [f"namespace {SYSTEM_NAMESPACE} with an account that may be an administrator ({error})"]
            for trace in left:
                step.log(f"May be left in the cluster: {trace}")
            return Receipt(removed=[] if left else [SYSTEM_NAMESPACE], left=left)

        await self._journals.of(payload).run("leave_cluster", act, gives=Receipt)

    async def _remove_all(self, payload: OperationPayload, step: StepJournal, receipt: Receipt) -> None:
        """`receipt` keeps what a try before this one removed."""
        receipt.left = []
        try:
            opened = self._access.open(payload.subject_id, operation=str(payload.operation_id), on_line=lines_to(step))
            async with opened as door:
                await require_unclaimed(door.client, payload.subject_id)
                await self._remove_models(door.client, receipt)
                if not await door.client.may("list", SECRETS):  # the narrow role sees no releases
                    receipt.left += await self._not_removed(payload, "the account may not do this any more")
                    return
                for position, addon in enumerate(self._addons):
                    step.percent(100 * position / len(self._addons), detail=addon.title)
                    await self._remove_one(payload, addon, door, receipt)
        except (NoCredential, ClusterNotFound):
            return  # nothing was ever installed

    async def _remove_models(self, client: ClusterClient, receipt: Receipt) -> None:
        name = self._models_namespace
        try:
            namespace = await client.get(NAMESPACES, name)
        except NotFound:
            return
        except Forbidden as error:
            receipt.left.append(self._perhaps_models(error))
            return
        if not is_ours(namespace):
            receipt.keeps(f"namespace {name}, which somebody else made")
        elif left := await remove_namespace(client, name):
            receipt.left.append(left)
        else:
            receipt.removed.append(f"namespace {name}")

    def _perhaps_models(self, why: object) -> str:
        return f"namespace {self._models_namespace}, if it is there ({why})"

    async def _remove_one(self, payload: OperationPayload, addon: Addon, door: Door, receipt: Receipt) -> None:
        """Ours is what is marked so in the cluster, whatever was written down when it was installed."""
        if await installer.remove(addon, door, timeout_s=_TIMEOUT_S):
            receipt.removed.append(addon.name)
            receipt.keeps(_DEFINITIONS)
        if addon.name is AddonName.HAMI:
            await hami.unmark_nodes(door)
        elif left := await remove_namespace(door.client, addon.namespace, release=addon.release):
            receipt.left.append(left)
        await self._steps.forget(payload.subject_id, addon.name)

    async def _leave(self, payload: OperationPayload) -> list[str]:
        async with self._database.reading() as session:
            cluster = await session.get(Cluster, payload.subject_id)
        if cluster is None:
            raise ClusterNotFound(payload.subject_id)
        if cluster.kubeconfig_encrypted is None and cluster.system_uid is None:
            return []  # it was never reached
        async with self._access.open_either(payload.subject_id, operation=str(payload.operation_id)) as door:
            if cluster.system_uid not in {None, await system_uid(door.client)}:
                raise AnotherCluster(cluster.name)
            await require_unclaimed(door.client, payload.subject_id)
            return await onboard.clean_up(door)

    async def _not_removed(self, payload: OperationPayload, why: object) -> list[str]:
        return [f"{name} ({why})" for name in sorted(await self._ours(payload.subject_id))]

    async def _ours(self, cluster_id: UUID) -> set[AddonName]:
        """Add-ons that we know to have installed."""
        known = await self._steps.known(cluster_id)
        return {addon.name for addon in known if addon.owner is AddonOwner.OURS}


async def patiently(work: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Do it, again and again while the cluster does not answer, for half a minute; raises what it raised last."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE_S
    while True:
        try:
            return await work()
        except _SILENT:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(_PAUSE_S)


def _summary(receipt: Receipt) -> str:
    removed = f"Removed: {', '.join(receipt.removed)}." if receipt.removed else "There was nothing of ours."
    left = f" May be left: {', '.join(receipt.left)}." if receipt.left else ""
    kept = f" Stays on purpose: {', '.join(receipt.kept)}." if receipt.kept else ""
    return removed + left + kept
