"""Add-ons of a cluster, one activity each. An optional one that fails is written down and the cluster goes on."""

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from budcluster.cluster.access import ClusterAccess
from budcluster.cluster.activities import lines_to
from budcluster.cluster.errors import ClusterNotFound
from budcluster.cluster.models import Cluster
from budcluster.cluster.options import PLATFORMS, ClusterOptions
from budcluster.cluster.verdicts import verdicts
from budcluster.config import AddonSettings
from budcluster.durable.execution import Execution
from budcluster.hardware import gpu_operator, hami, installer, nfd, prometheus
from budcluster.hardware.addons import Addon, Surroundings
from budcluster.hardware.models import AddonName, AddonOwner, AddonState, ClusterAddon
from budcluster.hardware.profile import Sharing
from budcluster.hardware.survey import nvidia_nodes
from budcluster.kit.database import Database
from budcluster.kube.door import Door
from budcluster.kube.errors import Conflict, Forbidden, Rejected
from budcluster.kube.helm import ClusterUnreachable, HelmError
from budcluster.kube.playbooks import PlaybookError
from budcluster.kube.versions import Version
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.journal import Journals, StepJournal

_PLAYBOOK_S = 300.0


class Outcome(BaseModel):
    """How an add-on's step ended."""

    detail: str


_BROKEN: Final = (
    HelmError, PlaybookError, Forbidden, Rejected, Conflict, gpu_operator.OperatorNotReady, hami.SharesMissing
)  # fmt: skip
"""What an optional add-on may fail with."""

Work = Callable[[Door, Surroundings, StepJournal], Awaitable[str]]


class AddonActivities:
    """Installing and removing what the service brings into clusters."""

    def __init__(
        self,
        database: Database,
        access: ClusterAccess,
        journals: Journals,
        settings: AddonSettings,
        *,
        detection_timeout_s: float,
    ) -> None:
        """`detection_timeout_s` is NFD_DETECTION_TIMEOUT."""
        self._database = database
        self._access = access
        self._journals = journals
        self._settings = settings
        self._detection_timeout_s = detection_timeout_s
        self.prometheus = prometheus.addon(settings)
        self.nfd = nfd.addon(settings)
        self.gpu_operator = gpu_operator.addon(settings)
        self.hami = hami.addon(settings)

    async def install_prometheus(self, payload: OperationPayload, _: Execution) -> None:
        """Measurements, so that usage can be read."""

        async def work(door: Door, about: Surroundings, _: StepJournal) -> str:
            return await self._install(payload.subject_id, self.prometheus, door, about)

        await self._optional(payload, "install_prometheus", self.prometheus, work)

    async def install_nfd(self, payload: OperationPayload, _: Execution) -> None:
        """Discovery of what the nodes have."""

        async def work(door: Door, about: Surroundings, step: StepJournal) -> str:
            found = await installer.find(self.nfd, door)
            if found is None or found.owner is AddonOwner.OURS:
                variables = {"namespace": self.nfd.namespace}
                await door.play("install_nfd.yml", variables=variables, timeout_s=_PLAYBOOK_S)
                step.percent(30)
            return await self._install(payload.subject_id, self.nfd, door, about)

        await self._optional(payload, "install_nfd", self.nfd, work)

    async def detect_nodes(self, payload: OperationPayload, _: Execution) -> None:
        """Wait until discovery has labelled every node that it reaches."""

        async def work(door: Door, _: Surroundings, step: StepJournal) -> str:
            def on_progress(done: int, of: int) -> None:
                step.percent(95 * done / of if of else 0, detail=f"{done} of {of} nodes")

            if await installer.find(self.nfd, door) is None:
                return "Node Feature Discovery is not there: the profile rests on what the nodes say of themselves."
            detection = await nfd.wait_until_detected(
                door.client, timeout_s=self._detection_timeout_s, on_progress=on_progress
            )
            for sentence in detection.not_covered:
                step.log(f"Not covered: {sentence}")
            said = f"{len(detection.covered)} of {len(detection.covered) + len(detection.missing)} nodes were detected."
            if not detection.missing:
                return said
            return f"{said} Not within {self._detection_timeout_s:.0f} s: {', '.join(detection.missing[:50])}."

        await self._step(payload, "detect_nodes", work)

    async def install_gpu_operator(self, payload: OperationPayload, _: Execution) -> None:
        """Drivers and plugins, where there are NVIDIA GPUs."""

        async def work(door: Door, about: Surroundings, _: StepJournal) -> str:
            if about.sharing is not Sharing.HAMI:
                # Before NVIDIA's own plugin comes: two plugins must never offer nvidia.com/gpu at once.
                await self._remove_hami(payload.subject_id, door)
            said = await self._install(payload.subject_id, self.gpu_operator, door, about)
            ready = await gpu_operator.wait_until_ready(door.client, timeout_s=self._settings.install_timeout_s)
            return f"{said} {ready[0].upper()}{ready[1:]}."

        if await self._is_needed(payload, "install_gpu_operator"):
            await self._optional(payload, "install_gpu_operator", self.gpu_operator, work)

    async def install_hami(self, payload: OperationPayload, _: Execution) -> None:
        """Shares of GPUs as the cluster's choice says; a cluster is taken into service without them, too."""
        if await self._is_needed(payload, "install_hami"):
            await self._optional(payload, "install_hami", self.hami, self._sharing(payload.subject_id))

    async def change_sharing(self, payload: OperationPayload, _: Execution) -> None:
        """The same for somebody who asked for just this: what cannot be done fails."""
        if await self._is_needed(payload, "install_hami"):
            await self._step(payload, "install_hami", self._sharing(payload.subject_id))

    def _sharing(self, cluster_id: UUID) -> Work:
        async def work(door: Door, about: Surroundings, step: StepJournal) -> str:
            if about.sharing is not Sharing.HAMI:
                await self._remove_hami(cluster_id, door)
                shared = about.sharing is Sharing.TIME_SLICING
                return "GPUs are time-sliced by NVIDIA's own plugin." if shared else "GPUs are handed out whole."
            await self._refuse_second_plugin(door)
            nodes = await nvidia_nodes(door.client)
            variables = {"nodes": nodes, "state": "present"}
            await door.play("install_hami.yml", variables=variables, timeout_s=_PLAYBOOK_S)
            step.percent(30)
            said = await self._install(cluster_id, self.hami, door, about)

            def on_progress(done: int, of: int) -> None:
                step.percent(50 + 45 * done / max(1, of), detail=f"{done} of {of} GPU nodes")

            await hami.wait_until_registered(
                door.client, timeout_s=self._settings.install_timeout_s, on_progress=on_progress
            )
            return said

        return work

    async def _refuse_second_plugin(self, door: Door) -> None:
        """HAMi and NVIDIA's own plugin must not both offer nvidia.com/gpu."""
        found = await installer.find(self.gpu_operator, door)
        if found is not None and found.owner is AddonOwner.OTHER:
            raise HelmError(
                "The GPU operator of this cluster was installed by somebody else, and its device plugin offers "
                "nvidia.com/gpu; switch that plugin off (devicePlugin.enabled=false), then try again."
            )

    async def _remove_hami(self, cluster_id: UUID, door: Door) -> None:
        removed = await installer.remove(self.hami, door, timeout_s=self._settings.install_timeout_s)
        if removed:
            variables = {"nodes": await nvidia_nodes(door.client), "state": "absent"}
            await door.play("install_hami.yml", variables=variables, timeout_s=_PLAYBOOK_S)
        async with self._database.writing() as session:
            await session.execute(
                delete(ClusterAddon).where(ClusterAddon.cluster_id == cluster_id, ClusterAddon.name == AddonName.HAMI)
            )

    async def _is_needed(self, payload: OperationPayload, step: str) -> bool:
        """Whether there is a GPU to set up; marks the step as skipped otherwise, which it can only be unbegun."""
        with verdicts():
            async with self._access.open(payload.subject_id, operation=str(payload.operation_id)) as door:
                found = await nvidia_nodes(door.client)
        if not found:
            await self._journals.of(payload).skip(step, "The cluster has no NVIDIA GPU.")
        return bool(found)

    async def _install(self, cluster_id: UUID, addon: Addon, door: Door, about: Surroundings) -> str:
        found = await installer.ensure(
            addon, about, door, mirror=self._settings.chart_mirror, timeout_s=self._settings.install_timeout_s
        )
        await self._record(cluster_id, addon, AddonState.READY, found=found)
        if found.owner is AddonOwner.OTHER:
            return f"{addon.title} is there already, installed by somebody else; it is used as it is."
        return f"{addon.title} {addon.version} is installed."

    async def _optional(self, payload: OperationPayload, name: str, addon: Addon, work: Work) -> None:
        """Do it; what cannot be done is recorded, and the cluster goes on without the add-on."""

        async def tried(door: Door, about: Surroundings, step: StepJournal) -> str:
            try:
                return await work(door, about, step)
            except ClusterUnreachable:
                raise
            except _BROKEN as error:
                # A cluster that is away, or does not know us any more, is no fault of the add-on's: this raises then.
                await door.client.read("/version")
                await self._record(payload.subject_id, addon, AddonState.FAILED, detail=str(error))
                step.log(f"{addon.title} failed: {error}")
                return f"Goes on without {addon.title}: {error}"

        await self._step(payload, name, tried)

    async def _step(self, payload: OperationPayload, name: str, work: Work) -> None:
        journal = self._journals.of(payload)
        about = await self._surroundings(payload.subject_id)
        if about is None:
            await journal.skip(name, "Add-ons are not managed in this cluster.")
            return

        async def act(step: StepJournal) -> Outcome:
            with verdicts():
                opened = self._access.open(
                    payload.subject_id, operation=str(payload.operation_id), on_line=lines_to(step)
                )
                async with opened as door:
                    detail = await work(door, about, step)
            step.percent(99, detail=detail[:500])
            return Outcome(detail=detail[:2000])

        await journal.run(name, act, gives=Outcome)

    async def _surroundings(self, cluster_id: UUID) -> Surroundings | None:
        """What values depend on; None where the service may not install anything."""
        async with self._database.reading() as session:
            cluster = await session.get(Cluster, cluster_id)
        if cluster is None:
            raise ClusterNotFound(cluster_id)
        options = ClusterOptions.of(cluster)
        if not options.manage_addons:
            return None
        return Surroundings(
            platform=PLATFORMS[cluster.provider],
            server=Version.parse(cluster.kubernetes_version or ""),
            sharing=options.gpu_sharing,
            replicas_per_gpu=options.replicas_per_gpu,
        )

    async def _record(
        self,
        cluster_id: UUID,
        addon: Addon,
        state: AddonState,
        *,
        found: installer.Found | None = None,
        detail: str | None = None,
    ) -> None:
        row = {
            "cluster_id": cluster_id,
            "name": addon.name,
            "owner": found.owner if found else AddonOwner.OURS,
            "state": state,
            "release": found.release if found else addon.release,
            "namespace": found.namespace if found else addon.namespace,
            "chart": found.chart if found else None,
            "detail": detail,
        }
        async with self._database.writing() as session:
            statement = insert(ClusterAddon).values(row)
            await session.execute(
                statement.on_conflict_do_update(
                    index_elements=[ClusterAddon.cluster_id, ClusterAddon.name],
                    set_={key: statement.excluded[key] for key in row if key not in {"cluster_id", "name"}},
                )
            )


async def known_addons(database: Database, cluster_id: UUID) -> list[ClusterAddon]:
    """What the service knows of a cluster's add-ons."""
    async with database.reading() as session:
        found = select(ClusterAddon).where(ClusterAddon.cluster_id == cluster_id)
        return list(await session.scalars(found))
