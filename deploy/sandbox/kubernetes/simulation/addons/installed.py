"""All add-ons that the simulation knows; each sleeps until its pods run."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.kubernetes.simulation.addons.certificates import CertificateJobs
from sandbox.kubernetes.simulation.addons.gpu_operator import GpuOperator
from sandbox.kubernetes.simulation.addons.hami import HamiPlugins, HamiScheduler, plugin_program
from sandbox.kubernetes.simulation.addons.nfd import NfdMaster, NfdPrune, NfdWorkers
from sandbox.kubernetes.simulation.addons.operands import OperandEffects, operand_program
from sandbox.kubernetes.simulation.programs import Maker
from sandbox.kubernetes.simulation.world import World

PROGRAMS: Sequence[Maker] = (operand_program, plugin_program)


class AddOns:
    """NFD, GPU operator, HAMi, webhook certificates."""

    def __init__(self, world: World) -> None:
        self.workers = NfdWorkers(world)
        self.operands = OperandEffects(world, self.workers)
        self.hami_scheduler = HamiScheduler(world)
        self.hami_plugins = HamiPlugins(world)
        world.admission.append(self.hami_scheduler.admit)
        self._all = (
            self.workers, NfdMaster(world), NfdPrune(world), CertificateJobs(world),
            self.operands, GpuOperator(world), self.hami_scheduler, self.hami_plugins,
        )  # fmt: skip

    def devices_changed(self, node: str) -> None:
        """A device of a node was lost or came back."""
        self.operands.refresh(node)
        self.hami_plugins.refresh(node)
        self.workers.refresh(node)

    def stop(self) -> None:
        """Listen no longer."""
        for one in self._all:
            one.stop()
