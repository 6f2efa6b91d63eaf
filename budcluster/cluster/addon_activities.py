"""Add-ons that every cluster gets, one activity each: measurements, and discovery of the hardware."""

from typing import Final

from budcluster.cluster.addon_steps import AddonSteps
from budcluster.durable.execution import Execution
from budcluster.hardware import installer, nfd
from budcluster.hardware.addons import Surroundings
from budcluster.hardware.catalogue import Catalogue
from budcluster.hardware.models import AddonOwner
from budcluster.kube.door import Door
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.journal import StepJournal

_PLAYBOOK_S: Final = 300.0


class AddonActivities:
    """Installing Prometheus and Node Feature Discovery, and waiting for what the latter finds."""

    def __init__(self, steps: AddonSteps, catalogue: Catalogue, *, detection_timeout_s: float) -> None:
        """`detection_timeout_s` is NFD_DETECTION_TIMEOUT."""
        self._steps = steps
        self._prometheus = catalogue.prometheus
        self._nfd = catalogue.nfd
        self._detection_timeout_s = detection_timeout_s

    async def install_prometheus(self, payload: OperationPayload, _: Execution) -> None:
        """Measurements, so that usage can be read."""

        async def work(door: Door, about: Surroundings, _: StepJournal) -> str:
            found = await self._steps.ensure(payload.subject_id, self._prometheus, door, about)
            return found.said(self._prometheus)

        await self._steps.install(payload, "install_prometheus", self._prometheus, work)

    async def install_nfd(self, payload: OperationPayload, _: Execution) -> None:
        """Discovery of what the nodes have."""

        async def work(door: Door, about: Surroundings, step: StepJournal) -> str:
            present = await installer.find(self._nfd, door)
            if present is None or present.owner is AddonOwner.OURS:
                variables = {"namespace": self._nfd.namespace}
                await door.play("install_nfd.yml", variables=variables, timeout_s=_PLAYBOOK_S)
                step.percent(30)
            found = await self._steps.ensure(payload.subject_id, self._nfd, door, about)
            return found.said(self._nfd)

        await self._steps.install(payload, "install_nfd", self._nfd, work)

    async def detect_nodes(self, payload: OperationPayload, _: Execution) -> None:
        """Wait until discovery has labelled every node that it reaches."""

        async def work(door: Door, _: Surroundings, step: StepJournal) -> str:
            def on_progress(done: int, of: int) -> None:
                step.percent(95 * done / of if of else 0, detail=f"{done} of {of} nodes")

            if await installer.find(self._nfd, door) is None:
                return "Node Feature Discovery is not there: the profile rests on what the nodes say of themselves."
            detection = await nfd.wait_until_detected(
                door.client, timeout_s=self._detection_timeout_s, on_progress=on_progress
            )
            for name in detection.missing:
                step.log(f"Not detected in time: {name}")
            for sentence in detection.not_covered:
                step.log(f"Not covered: {sentence}")
            return detection.said(self._detection_timeout_s)

        await self._steps.run(payload, "detect_nodes", work)
