"""A cluster whose time is stepped by hand: no waiting, no event loop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.kubernetes.clock import Clock
from sandbox.kubernetes.simulation.simulation import Simulation
from sandbox.kubernetes.simulation.world import Settings
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]


class ManualClock(Clock):
    """Stands still until told to move."""

    def __init__(self) -> None:
        super().__init__()
        self._now = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def move_to(self, seconds: float) -> None:
        # One microsecond later, since a datetime rounds: a timer due at that moment must be due then.
        self._now = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=1)

    async def sleep(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class Cluster:
    """A simulation with the verbs that tests use."""

    def __init__(self, settings: Settings) -> None:
        self.clock = ManualClock()
        self.store = Store(clock=self.clock)
        self.simulation = Simulation(self.store, settings)
        self.world = self.simulation.world
        for name in ("default", "kube-system"):
            if self.store.find("Namespace", None, name) is None:
                self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.simulation.populate()
        self.simulation.driver.settle()

    def advance(self, seconds: float) -> None:
        """Let that many virtual seconds pass, doing what becomes due in order."""
        driver = self.simulation.driver
        target = driver.seconds() + seconds
        driver.settle()
        while (due := driver.due_at()) is not None and due <= target:
            self.clock.move_to(max(due, driver.seconds()))
            driver.settle()
        self.clock.move_to(target)
        driver.settle()

    def create(self, *objects: Obj) -> None:
        for obj in objects:
            self.store.create(obj)
        self.simulation.driver.settle()

    def pods(self, namespace: str = "default") -> list[Obj]:
        return self.store.list("Pod", namespace)

    def pod(self, name: str, namespace: str = "default") -> Obj:
        return self.store.get("Pod", namespace, name)

    def get(self, kind: str, name: str, namespace: str | None = "default") -> Obj:
        return self.store.get(kind, namespace, name)

    def node(self, name: str) -> Obj:
        return self.store.get("Node", None, name)

    def events(self, reason: str) -> list[str]:
        return [event["message"] for event in self.store.list("Event") if event["reason"] == reason]

    def log(
        self, name: str, namespace: str = "default", container: str | None = None, *, previous: bool = False
    ) -> str:
        worker = self.simulation.fleet.worker(self.pod(name, namespace))
        assert worker is not None
        found = worker.find(container)
        assert found is not None
        attempt = found.previous if previous else found.attempt or found.previous
        assert attempt is not None
        return "\n".join(text for _, text in attempt.log(self.simulation.driver.seconds()))


@pytest.fixture
def make_cluster() -> Callable[..., Cluster]:
    def make(nodes: str = "cpu:3", **settings: Any) -> Cluster:
        return Cluster(Settings(nodes=nodes, **settings))

    return make
