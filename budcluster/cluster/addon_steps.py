"""How a step goes that installs an add-on: tried again on a hiccup; what fails for good is recorded, with its owner.

An optional add-on's failure ends there, and the cluster goes on without it. A cluster that is away, or does not know
us any more, is no fault of an add-on's: that is raised, and tried again by the step's own policy.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import select

from budcluster.cluster.access import ClusterAccess
from budcluster.cluster.activities import lines_to
from budcluster.cluster.errors import ClusterManagedElsewhere, ClusterNotFound
from budcluster.cluster.models import Cluster, ClusterStatus
from budcluster.cluster.options import PLATFORMS, ClusterOptions
from budcluster.cluster.verdicts import verdicts
from budcluster.config import AddonSettings
from budcluster.hardware import addon_records, installer
from budcluster.hardware.addons import Addon, AddonFailed, Surroundings
from budcluster.hardware.models import AddonName, AddonState, ClusterAddon
from budcluster.hardware.sharing import SharingRefused
from budcluster.hardware.survey import nvidia_nodes
from budcluster.kit.database import Database
from budcluster.kube.door import Door
from budcluster.kube.errors import Conflict, Forbidden, Rejected
from budcluster.kube.helm_errors import (
    ChartUnavailable,
    HelmError,
    NotReadyInTime,
    ObjectRefused,
    OwnedByAnother,
    RenderFailed,
)
from budcluster.kube.playbooks import AnsibleMissing, PlaybookError, PlaybookMissing, PlaybookTimedOut
from budcluster.kube.versions import Version
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.journal import Journals, StepJournal
from budcluster.operations.models import OperationStep, StepStatus
from budcluster.provisioning.adoption import ManagedElsewhere, require_unclaimed

_FINAL: Final = (
    AddonFailed, AnsibleMissing, ChartUnavailable, Forbidden, NotReadyInTime, ObjectRefused, OwnedByAnother,
    PlaybookMissing, PlaybookTimedOut, Rejected, RenderFailed,
)  # fmt: skip
"""Trying again at once is useless, or has taken its time already."""
_REFUSED: Final = "sharing-refused"
"""The type of error of a step that was refused."""
_HICCUPS: Final = (HelmError, PlaybookError, Conflict)
"""Worth trying again, unless final."""
_PAUSES_S: Final = (2.0, 4.0, 8.0, 16.0)

Work = Callable[[Door, Surroundings, StepJournal], Awaitable[str]]
Instead = Callable[[Door, Surroundings, StepJournal, Exception], Awaitable[str]]
"""What to do where an add-on failed for good; a sentence about it, or nothing."""


class Outcome(BaseModel):
    """How an add-on's step ended."""

    detail: str


class AddonSteps:
    """Runs the steps, and keeps what is known of a cluster's add-ons."""

    def __init__(self, database: Database, access: ClusterAccess, journals: Journals, settings: AddonSettings) -> None:
        self._database = database
        self._access = access
        self._journals = journals
        self.settings = settings

    async def run(self, payload: OperationPayload, name: str, work: Work) -> None:
        """Do a step's work in the open cluster, if it is ours still; skipped where nothing may be installed."""
        journal = self._journals.of(payload)
        cluster = await self._cluster(payload.subject_id)
        if not ClusterOptions.of(cluster).manage_addons:
            await journal.skip(name, "Add-ons are not managed in this cluster.")
            return

        async def act(step: StepJournal) -> Outcome:
            detail = await self._at_work(payload, cluster, step, work)
            step.percent(99, detail=detail[:500])
            return Outcome(detail=detail[:2000])

        await journal.run(name, act, gives=Outcome)

    async def undo(self, payload: OperationPayload, name: str, work: Work, *, of: Sequence[str]) -> None:
        """Take back what the steps `of` may have done together, told under the step `name`.

        Nothing is done where none of them began or got beyond a refusal, and in a cluster that is being deleted or
        installs nothing. What an earlier attempt has left is not known.
        """
        cluster, journal = await self._cluster(payload.subject_id), self._journals.of(payload)
        is_untouched = payload.attempt == 1 and all(map(_has_changed_nothing, await journal.rows(*of)))
        if is_untouched or cluster.status is ClusterStatus.DELETING or not ClusterOptions.of(cluster).manage_addons:
            return
        async with journal.undoing(name) as step:
            with verdicts():
                try:
                    said = await self._at_work(payload, cluster, step, work)
                except _FINAL as error:
                    raise AddonFailed(str(error)) from error
            if said:
                step.log(said)

    async def _at_work(self, payload: OperationPayload, cluster: Cluster, step: StepJournal, work: Work) -> str:
        options = ClusterOptions.of(cluster)
        with verdicts():
            opened = self._access.open(cluster.id, operation=str(payload.operation_id), on_line=lines_to(step))
            async with opened as door:
                await _require_claim(door, cluster.id)
                about = Surroundings(
                    platform=PLATFORMS[cluster.provider],
                    server=Version.of_server(await door.client.read("/version")),
                    sharing=options.gpu_sharing,
                    replicas_per_gpu=options.replicas_per_gpu,
                )
                return await work(door, about, step)

    async def install(
        self, payload: OperationPayload, name: str, addon: Addon, work: Work,
        *, optional: bool = True, instead: Instead | None = None,
    ) -> None:  # fmt: skip
        """Do a step that brings an add-on. Raises what it failed with, unless it is optional."""

        async def tried(door: Door, about: Surroundings, step: StepJournal) -> str:
            try:
                return await _persistently(lambda: work(door, about, step), door, step)
            except (*_FINAL, *_HICCUPS) as error:
                await door.client.read("/version")
                because = str(error)
                if instead and (said := await _second_best(instead, door, about, step, error)):
                    because = f"{because} {said}"
                await self._record_failure(payload.subject_id, addon, door, error, because)
                if not optional:
                    kind = SharingRefused if isinstance(error, SharingRefused) else AddonFailed
                    raise kind(because) from error
                step.log(f"{addon.title} failed: {because}")
                return f"Goes on without {addon.title}: {because}"

        await self.run(payload, name, tried)

    async def has_nvidia(self, payload: OperationPayload, step: str) -> bool:
        """Whether there is a GPU to set up; marks the step as skipped otherwise, which it can only be unbegun."""
        with verdicts():
            async with self._access.open(payload.subject_id, operation=str(payload.operation_id)) as door:
                found = await nvidia_nodes(door.client)
        if not found:
            await self._journals.of(payload).skip(step, "The cluster has no NVIDIA GPU.")
        return bool(found)

    async def ensure(self, cluster_id: UUID, addon: Addon, door: Door, about: Surroundings) -> installer.Found:
        """Install the add-on, or bring ours in line, and write down whose it is."""
        found = await installer.ensure(
            addon, about, door, mirror=self.settings.chart_mirror, timeout_s=self.settings.install_timeout_s
        )
        await self.record(cluster_id, addon, AddonState.READY, found=found)
        return found

    async def record(
        self,
        cluster_id: UUID,
        addon: Addon,
        state: AddonState,
        *,
        found: installer.Found | None,
        detail: str | None = None,
    ) -> None:
        """Write down how an add-on stands. Without one found, the row tells of our own try."""
        async with self._database.writing() as session:
            await addon_records.record(session, cluster_id, addon, state, found=found, detail=detail)

    async def forget(self, cluster_id: UUID, name: AddonName) -> None:
        """Know nothing of an add-on any more."""
        async with self._database.writing() as session:
            await addon_records.forget(session, cluster_id, name)

    async def known(self, cluster_id: UUID) -> list[ClusterAddon]:
        """What is known of a cluster's add-ons."""
        async with self._database.reading() as session:
            found = select(ClusterAddon).where(ClusterAddon.cluster_id == cluster_id)
            return list(await session.scalars(found))

    async def _record_failure(self, cluster_id: UUID, addon: Addon, door: Door, error: Exception, because: str) -> None:
        found = await installer.owner_now(addon, door)
        # What was refused has changed nothing: an add-on that is there does as it did before.
        state = AddonState.READY if isinstance(error, SharingRefused) and found else AddonState.FAILED
        await self.record(cluster_id, addon, state, found=found, detail=because)

    async def _cluster(self, cluster_id: UUID) -> Cluster:
        async with self._database.reading() as session:
            cluster = await session.get(Cluster, cluster_id)
        if cluster is None:
            raise ClusterNotFound(cluster_id)
        return cluster


def _has_changed_nothing(row: OperationStep) -> bool:
    is_refused = row.status is not StepStatus.SUCCEEDED and (row.error or {}).get("type") == _REFUSED
    return row.started_at is None or is_refused


async def _require_claim(door: Door, cluster_id: UUID) -> None:
    """Another budcluster may have taken the cluster over since the step before. Raises ClusterManagedElsewhere."""
    try:
        await require_unclaimed(door.client, cluster_id)
    except ManagedElsewhere as error:
        raise ClusterManagedElsewhere(error.claimed_as) from error


async def _persistently(work: Callable[[], Awaitable[str]], door: Door, step: StepJournal) -> str:
    """Do it, again after a hiccup, a few times. Raises the last one, or that the cluster is away."""
    for pause_s in _PAUSES_S:
        try:
            return await work()
        except _FINAL:
            raise
        except _HICCUPS as error:
            # Helm also fails this way where a chart's repository is away: only the cluster itself knows.
            await door.client.read("/version")
            step.log(f"Tries again in {pause_s:.0f} s: {error}")
        await asyncio.sleep(pause_s)
    return await work()


async def _second_best(instead: Instead, door: Door, about: Surroundings, step: StepJournal, error: Exception) -> str:
    try:
        return await instead(door, about, step, error)
    except (*_FINAL, *_HICCUPS) as another:
        await door.client.read("/version")
        return f"What should have taken its place failed, too: {another}"
