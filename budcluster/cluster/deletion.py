"""Leaving a cluster: what the service brought is taken away in reverse order, then the row goes.

A cluster that is dead is forgotten all the same; the operation then says what may be left in it.
"""

from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import delete

from budcluster.cluster.access import ClusterAccess, NoCredential
from budcluster.cluster.activities import lines_to
from budcluster.cluster.addon_activities import AddonActivities, known_addons
from budcluster.cluster.errors import ClusterNotFound
from budcluster.credentials.errors import SealedSecretRefused
from budcluster.durable.execution import Execution
from budcluster.hardware import installer
from budcluster.hardware.models import AddonName, AddonOwner, ClusterAddon
from budcluster.hardware.survey import nvidia_nodes
from budcluster.kit.database import Database
from budcluster.kube.door import Door
from budcluster.kube.errors import CertificateProblem, KubeError, Unauthorized, Unreachable
from budcluster.kube.helm import ClusterUnreachable, HelmError
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.journal import Journals, StepJournal
from budcluster.provisioning.ansible import onboard

_TIMEOUT_S = 300.0
_LOST = (Unreachable, Unauthorized, CertificateProblem, ClusterUnreachable)
"""The cluster is gone, or does not know us any more: nothing can be done in it."""


class Receipt(BaseModel):
    """What became of our things."""

    removed: list[str] = []
    left: list[str] = []


class DeletionActivities:
    """The steps of deleting an adopted cluster."""

    def __init__(self, database: Database, access: ClusterAccess, journals: Journals, addons: AddonActivities) -> None:
        self._database = database
        self._access = access
        self._journals = journals
        # Reverse order of installation.
        self._addons = (addons.hami, addons.gpu_operator, addons.nfd, addons.prometheus)

    async def remove_addons(self, payload: OperationPayload, _: Execution) -> None:
        """Uninstall what we installed, and only that."""

        async def act(step: StepJournal) -> Receipt:
            receipt = await self._remove_all(payload, step)
            for left in receipt.left:
                step.log(f"May be left in the cluster: {left}")
            step.percent(99, detail=_summary(receipt))
            return receipt

        await self._journals.of(payload).run("remove_addons", act, gives=Receipt)

    async def leave_cluster(self, payload: OperationPayload, _: Execution) -> None:
        """Take away our account, namespace and definitions."""

        async def act(step: StepJournal) -> Receipt:
            try:
                async with self._access.open(payload.subject_id, operation=str(payload.operation_id)) as door:
                    await onboard.clean_up(door)
            except (NoCredential, ClusterNotFound):
                return Receipt()
            except (*_LOST, SealedSecretRefused) as error:
                left = f"namespace {onboard.SYSTEM_NAMESPACE} with its account, ClusterRoleBinding budcluster ({error})"
                step.log(f"May be left in the cluster: {left}")
                return Receipt(left=[left])
            return Receipt(removed=[onboard.SYSTEM_NAMESPACE])

        await self._journals.of(payload).run("leave_cluster", act, gives=Receipt)

    async def _remove_all(self, payload: OperationPayload, step: StepJournal) -> Receipt:
        ours = {
            known.name
            for known in await known_addons(self._database, payload.subject_id)
            if known.owner is AddonOwner.OURS
        }
        receipt = Receipt()
        try:
            opened = self._access.open(payload.subject_id, operation=str(payload.operation_id), on_line=lines_to(step))
            async with opened as door:
                for position, addon in enumerate(self._addons):
                    step.percent(100 * position / len(self._addons), detail=addon.title)
                    if addon.name in ours:
                        await self._remove_one(payload.subject_id, addon.name, door, receipt)
        except (NoCredential, ClusterNotFound):
            return receipt
        except (*_LOST, SealedSecretRefused) as error:
            gone = set(receipt.removed)
            receipt.left += [f"{name} ({error})" for name in sorted(ours) if name not in gone]
        return receipt

    async def _remove_one(self, cluster_id: UUID, name: AddonName, door: Door, receipt: Receipt) -> None:
        addon = next(addon for addon in self._addons if addon.name is name)
        try:
            await installer.remove(addon, door, timeout_s=_TIMEOUT_S)
            if name is AddonName.HAMI:
                await _unlabel(door)
        except _LOST:
            raise
        except (HelmError, KubeError) as error:
            receipt.left.append(f"{name} ({error})")
            return
        receipt.removed.append(name)
        async with self._database.writing() as session:
            await session.execute(
                delete(ClusterAddon).where(ClusterAddon.cluster_id == cluster_id, ClusterAddon.name == name)
            )


async def _unlabel(door: Door) -> None:
    variables = {"nodes": await nvidia_nodes(door.client), "state": "absent"}
    await door.play("install_hami.yml", variables=variables, timeout_s=_TIMEOUT_S)


def _summary(receipt: Receipt) -> str:
    removed = f"Removed: {', '.join(receipt.removed)}." if receipt.removed else "There was nothing of ours."
    return removed + (f" May be left: {', '.join(receipt.left)}." if receipt.left else "")
