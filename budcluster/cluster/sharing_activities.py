"""The GPU stack of NVIDIA nodes, and who hands out the GPUs: `hardware.sharing` chooses, this acts on it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from budcluster.cluster.addon_steps import AddonSteps, Work
from budcluster.cluster.contracts import OnboardingPayload, SharingPayload
from budcluster.cluster.options import ClusterOptions
from budcluster.durable.execution import Execution
from budcluster.hardware import gpu_operator, hami, installer, sharing
from budcluster.hardware.addons import AddonFailed, Surroundings
from budcluster.hardware.catalogue import Catalogue
from budcluster.hardware.models import AddonOwner, AddonState
from budcluster.hardware.reading.profile import Sharing
from budcluster.hardware.sharing import Seen, Server, SharingRefused
from budcluster.hardware.survey import nvidia_nodes
from budcluster.kube.door import Door
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.journal import StepJournal

Options = Mapping[str, Any]
"""A cluster's options as kept in its row."""


class SharingActivities:
    """Installing the GPU operator and HAMi, and changing how GPUs are handed out."""

    def __init__(self, steps: AddonSteps, catalogue: Catalogue) -> None:
        self._steps = steps
        self._operator = catalogue.gpu_operator
        self._hami = catalogue.hami

    async def install_gpu_operator(self, payload: OnboardingPayload, _: Execution) -> None:
        """Drivers and plugins, where there are NVIDIA GPUs."""
        if await self._steps.has_nvidia(payload, "install_gpu_operator"):
            work = self._bringing_operator(payload.subject_id, force=payload.force, strict=False)
            await self._steps.install(payload, "install_gpu_operator", self._operator, work)

    async def align_gpu_operator(self, payload: SharingPayload, _: Execution) -> None:
        """The same for somebody who asked for another sharing: a choice that cannot be followed changes nothing."""

        async def instead(door: Door, about: Surroundings, step: StepJournal, error: Exception) -> str:
            if isinstance(error, SharingRefused):
                return ""
            former = _former(payload.options_before, about)
            return await self._put_back(payload.subject_id, door, step, about, former, force=payload.force)

        if await self._steps.has_nvidia(payload, "install_gpu_operator"):
            work = self._bringing_operator(payload.subject_id, force=payload.force, strict=True)
            await self._steps.install(
                payload, "install_gpu_operator", self._operator, work, optional=False, instead=instead
            )

    async def install_hami(self, payload: OnboardingPayload, _: Execution) -> None:
        """Shares of GPUs as the cluster's choice says; a cluster is taken into service without them, too."""
        await self._share(payload, force=payload.force, optional=True, before=None)

    async def change_sharing(self, payload: SharingPayload, _: Execution) -> None:
        """The same for somebody who asked for just this: what cannot be done fails."""
        await self._share(payload, force=payload.force, optional=False, before=payload.options_before)

    async def put_sharing_back(self, payload: SharingPayload, _: Execution) -> None:
        """Hand out GPUs as before a change that was cancelled or came to nothing; mostly that was done by its step."""

        async def work(door: Door, about: Surroundings, step: StepJournal) -> str:
            if not await nvidia_nodes(door.client):
                return ""
            former = _former(payload.options_before, about)
            return await self._put_back(payload.subject_id, door, step, about, former, force=payload.force)

        await self._steps.undo(payload, "install_gpu_operator", work, of=("install_gpu_operator", "install_hami"))

    def _bringing_operator(self, cluster_id: UUID, *, force: bool, strict: bool) -> Work:
        async def work(door: Door, about: Surroundings, step: StepJournal) -> str:
            seen = await self._look(door)
            choice = sharing.choose(about.sharing, seen, force=force)
            if choice.refused and strict:
                raise SharingRefused(choice.said)
            if choice.refused and seen.operator is AddonOwner.OURS:
                return f"It stays as it is: {choice.said}"
            if not choice.refused and choice.server is not Server.HAMI:
                # Before NVIDIA's own plugin comes: two plugins must never offer nvidia.com/gpu at once.
                await self._remove_hami(cluster_id, door)
            step.percent(20)
            return await self._bring_operator(cluster_id, door, replace(about, plugin=choice.server is Server.OPERATOR))

        return work

    async def _bring_operator(self, cluster_id: UUID, door: Door, about: Surroundings) -> str:
        found = await self._steps.ensure(cluster_id, self._operator, door, about)
        said = found.said(self._operator)
        if found.owner is AddonOwner.OTHER:
            return said
        timeout_s = self._steps.settings.install_timeout_s
        ready = await gpu_operator.wait_until_ready(door.client, timeout_s=timeout_s)
        return f"{said} {ready[0].upper()}{ready[1:]}."

    async def _share(self, payload: OperationPayload, *, force: bool, optional: bool, before: Options | None) -> None:
        cluster_id = payload.subject_id

        async def work(door: Door, about: Surroundings, step: StepJournal) -> str:
            seen = await self._look(door)
            choice = sharing.choose(about.sharing, seen, force=force)
            if choice.refused:
                raise SharingRefused(choice.said)
            if choice.server is Server.HAMI:
                await self._make_room(cluster_id, door, about, seen)
                return await self._bring_hami(cluster_id, door, about, step)
            if choice.server is Server.OPERATOR and seen.operator is None:
                raise SharingRefused("Nobody hands out GPUs: the GPU operator, whose plugin would, is not installed.")
            await self._remove_hami(cluster_id, door)
            if seen.hami is AddonOwner.OTHER:
                found = await installer.find(self._hami, door)
                await self._steps.record(cluster_id, self._hami, AddonState.READY, found=found)
            if choice.server is Server.OPERATOR and not seen.operator_serves:
                await self._bring_operator(cluster_id, door, replace(about, plugin=True))
            return choice.said

        async def instead(door: Door, about: Surroundings, step: StepJournal, error: Exception) -> str:
            former = _former(before, about)
            if about.sharing is not Sharing.HAMI or isinstance(error, SharingRefused):
                return await self._put_back(cluster_id, door, step, about, former, force=force)
            return await self._do_without_hami(cluster_id, door, former or _whole(about), force=force)

        if await self._steps.has_nvidia(payload, "install_hami"):
            await self._steps.install(payload, "install_hami", self._hami, work, optional=optional, instead=instead)

    async def _make_room(self, cluster_id: UUID, door: Door, about: Surroundings, seen: Seen) -> None:
        """See that nobody offers GPUs before HAMi does. Raises SharingRefused."""
        if seen.operator_serves:  # its own step failed, HAMi failed before, or this is the way back from it
            # Not waited for until it is ready, which it may never be: that its plugin leaves is all that matters here.
            await self._steps.ensure(cluster_id, self._operator, door, replace(about, plugin=False))
        if seen.hami is None and (node := await hami.still_offering(door.client)):
            if seen.operator_serves:
                raise SharingRefused(
                    f"The GPU operator's plugin still offers nvidia.com/gpu on {node}; try again later."
                )
            raise SharingRefused(
                f"Something that is none of the known plugins offers nvidia.com/gpu on {node}, such as one in the "
                "node's image; switch it off, then try again."
            )

    async def _bring_hami(self, cluster_id: UUID, door: Door, about: Surroundings, step: StepJournal) -> str:
        def on_progress(done: int, of: int) -> None:
            step.percent(50 + 45 * done / max(1, of), detail=f"{done} of {of} GPU nodes")

        await hami.mark_nodes(door)
        step.percent(30)
        found = await self._steps.ensure(cluster_id, self._hami, door, about)
        timeout_s = self._steps.settings.install_timeout_s
        registered = await hami.wait_until_registered(door.client, timeout_s=timeout_s, on_progress=on_progress)
        said = found.said(self._hami)
        if registered.left_out:
            said = f"{said} Without shares: {hami.some(registered.left_out)}."
            await self._steps.record(cluster_id, self._hami, AddonState.READY, found=found, detail=said)
        return said

    async def _do_without_hami(self, cluster_id: UUID, door: Door, way: Surroundings, *, force: bool) -> str:
        """What to do where HAMi fails: GPUs that nobody hands out are of no use to anybody. `way` is another one."""
        if await hami.is_working(door.client):
            return "What was there before works, and stays."
        seen = await self._look(door)
        choice = sharing.choose(way.sharing, seen, force=force or seen.server is Server.OTHERS)
        if choice.refused:
            return f"It stays as it is: {choice.said}"
        await self._remove_hami(cluster_id, door)
        if choice.server is Server.OPERATOR and not seen.operator_serves:
            if node := await hami.still_offering(door.client):
                return f"GPUs are handed out by something else, on {node} for one."
            await self._bring_operator(cluster_id, door, replace(way, plugin=True))
        return choice.said

    async def _put_back(
        self, cluster_id: UUID, door: Door, step: StepJournal, about: Surroundings, former: Surroundings | None,
        *, force: bool,
    ) -> str:  # fmt: skip
        """Hand out GPUs as before a change that came to nothing, or whole where that is unknown; what was done.

        Safe to repeat. Where others hand out GPUs, nothing is done, and GPUs that pods were given meanwhile are not
        taken from them, unless forced. Where nobody hands them out, pods lose nothing by it. Raises SharingRefused and
        AddonFailed where it is not as before.
        """
        seen = await self._look(door)
        way = former or _whole(about)
        is_idle = seen.server is Server.OTHERS
        choice = sharing.choose(way.sharing, seen, force=force or is_idle)
        if choice.server is Server.OTHERS:
            return ""
        if choice.refused and former:
            raise SharingRefused(f"It is not as before: {choice.said}")
        if choice.refused:
            return ""
        if choice.server is Server.HAMI:
            return await self._bring_hami_back(cluster_id, door, way, step, seen)
        if former is None:
            stays = not is_idle or seen.operator is None or await hami.still_offering(door.client) is not None
        else:
            stays = seen.operator is None or (seen.server is Server.OPERATOR and former == about)
        if stays:
            return ""
        if seen.server is Server.HAMI:
            await self._remove_hami(cluster_id, door)
        await self._bring_operator(cluster_id, door, replace(way, plugin=True))
        return f"It is as before: {choice.said}" if former else choice.said

    async def _bring_hami_back(
        self, cluster_id: UUID, door: Door, way: Surroundings, step: StepJournal, seen: Seen
    ) -> str:
        if seen.server is Server.HAMI and await hami.is_working(door.client):
            return ""  # it was not taken away
        await self._make_room(cluster_id, door, way, seen)
        try:
            await self._bring_hami(cluster_id, door, way, step)
        except AddonFailed as error:  # perhaps it did not work before, either
            said = await self._do_without_hami(cluster_id, door, _whole(way), force=True)
            raise AddonFailed(f"It is not as before: {error} {said}") from error
        return "It is as before: GPUs are shared by HAMi."

    async def _remove_hami(self, cluster_id: UUID, door: Door) -> None:
        await installer.remove(self._hami, door, timeout_s=self._steps.settings.install_timeout_s)
        await hami.unmark_nodes(door)
        await self._steps.forget(cluster_id, self._hami.name)

    async def _look(self, door: Door) -> Seen:
        return await sharing.look(door, hami=self._hami, operator=self._operator)


def _whole(about: Surroundings) -> Surroundings:
    return replace(about, sharing=Sharing.NONE)


def _former(before: Options | None, about: Surroundings) -> Surroundings | None:
    """How GPUs were handed out before the change; None where that is unknown.

    A HAMi that is asked for again was not there: the change would not have taken it away.
    """
    options = ClusterOptions.model_validate(before or {})
    if before is None or (options.gpu_sharing is Sharing.HAMI and about.sharing is Sharing.HAMI):
        return None
    return replace(about, sharing=options.gpu_sharing, replicas_per_gpu=options.replicas_per_gpu)
