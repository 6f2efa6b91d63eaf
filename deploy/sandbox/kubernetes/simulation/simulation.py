"""The whole cluster: nodes that appear, and everything that keeps it alive."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from sandbox.kubernetes.errors import AlreadyExists
from sandbox.kubernetes.simulation.addons.installed import PROGRAMS, AddOns
from sandbox.kubernetes.simulation.addons.prometheus import exporter_programs
from sandbox.kubernetes.simulation.addons.telemetry import Telemetry
from sandbox.kubernetes.simulation.controllers.daemonsets import DaemonSetController
from sandbox.kubernetes.simulation.controllers.deployments import DeploymentController
from sandbox.kubernetes.simulation.controllers.disruption import DisruptionController
from sandbox.kubernetes.simulation.controllers.jobs import JobController
from sandbox.kubernetes.simulation.controllers.nodes import NodeController
from sandbox.kubernetes.simulation.controllers.replicasets import ReplicaSetController
from sandbox.kubernetes.simulation.controllers.services import ServiceController
from sandbox.kubernetes.simulation.controllers.statefulsets import StatefulSetController
from sandbox.kubernetes.simulation.doors import KubeletDoors
from sandbox.kubernetes.simulation.driver import Driver
from sandbox.kubernetes.simulation.faults import Faults
from sandbox.kubernetes.simulation.kubelet import KubeletFleet
from sandbox.kubernetes.simulation.machines import make_machines
from sandbox.kubernetes.simulation.models.engines import runtime_program
from sandbox.kubernetes.simulation.nodes import node_object
from sandbox.kubernetes.simulation.profiles import parse_nodes
from sandbox.kubernetes.simulation.programs import ProgramCatalogue
from sandbox.kubernetes.simulation.scheduler import Scheduler
from sandbox.kubernetes.simulation.view import View
from sandbox.kubernetes.simulation.volumes import DEFAULT_CLASS, ClaimController
from sandbox.kubernetes.simulation.world import Settings, World
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]


class Part(Protocol):
    """Something that listens to the store until it is stopped."""

    def stop(self) -> None: ...


class Simulation:
    """Give it a store, `start()` it inside a running loop, `await stop()` it. `kubelets` answers the API server.

    Without `start()` it can be driven by hand: `populate()` once, then `driver.settle()` after each change and after
    each step of a manual clock.
    """

    def __init__(self, store: Store, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        driver = Driver(store.clock)
        self.world = World(store, store.clock, driver, View(store), self.settings)
        self.driver = driver
        self.addons = AddOns(self.world)
        telemetry = Telemetry(self.world)
        makers = (*PROGRAMS, runtime_program, exporter_programs(self.world, telemetry))
        self.fleet = telemetry.fleet = KubeletFleet(self.world, ProgramCatalogue(makers))
        self.kubelets = KubeletDoors(self.world, self.fleet)
        self.scheduler = Scheduler(self.world)
        self.scheduler.sharing = self.addons.hami_scheduler
        self.claims = ClaimController(self.world)
        self.nodes = NodeController(self.world, self.fleet)
        self._faults = Faults(self.world, fleet=self.fleet, nodes=self.nodes, addons=self.addons, claims=self.claims)
        self._parts: list[Part] = [
            self.addons, self.fleet, self.scheduler, self.claims, self.nodes,
            DeploymentController(self.world), ReplicaSetController(self.world), StatefulSetController(self.world),
            DaemonSetController(self.world), JobController(self.world), ServiceController(self.world),
            DisruptionController(self.world),
        ]  # fmt: skip
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Register the nodes and let time run. Needs a running event loop."""
        self.populate()
        self._task = asyncio.create_task(self.driver.run(), name="sandbox-simulation")

    async def stop(self) -> None:
        """End every simulated process; the store keeps what it holds."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for part in self._parts:
            part.stop()
        self.world.view.stop()

    def inject(self, name: str, **arguments: Any) -> None:
        """Make something go wrong (`faults.Faults` lists what). Raises BadRequest for what makes no sense."""
        self._faults.inject(name, arguments)

    def populate(self) -> None:
        """Create the default StorageClass and the nodes that the settings ask for. Nodes that exist are kept."""
        self._ensure(_standard_class())
        now = self.world.now()
        for machine in make_machines(parse_nodes(self.settings.nodes), seed=self.settings.seed):
            self.world.machines[machine.name] = machine
            node = node_object(machine, now=now)
            if self._ensure(node):
                status = node["status"]
                self.world.change(node, lambda one, status=status: one.update(status=status), subresource="status")  # type: ignore[misc] # default binds the loop variable

    def _ensure(self, obj: Obj) -> bool:
        try:
            self.world.store.create(obj)
        except AlreadyExists:
            return False
        return True


def _standard_class() -> Obj:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {DEFAULT_CLASS: "true"}},
        "provisioner": "ebs.csi.aws.com",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
    }
