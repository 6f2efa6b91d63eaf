"""All kubelets of the cluster: they pick up pods that are bound to their node and let them go."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation.pods import PodWorker
from sandbox.kubernetes.simulation.programs import ProgramCatalogue
from sandbox.kubernetes.simulation.view import is_finished
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]


class KubeletFleet:
    """One worker per live pod, found by uid; nothing is kept for pods that are gone."""

    def __init__(self, world: World, programs: ProgramCatalogue) -> None:
        self._world = world
        self._programs = programs
        self._workers: dict[str, PodWorker] = {}
        self._addresses = 0
        self._stop = world.store.subscribe(self._on_event, kinds=("Pod",))

    def stop(self) -> None:
        """Listen no longer."""
        self._stop()

    def worker(self, pod: Obj) -> PodWorker | None:
        """The worker of a pod, finished pods included while they exist."""
        return self._workers.get(pod["metadata"]["uid"])

    def workers_on(self, node: str) -> list[PodWorker]:
        """What runs, or has run and still exists, on a node."""
        return [worker for worker in self._workers.values() if worker.machine.name == node]

    def workers(self) -> list[PodWorker]:
        """The same of all nodes."""
        return list(self._workers.values())

    def resume(self, node: str) -> None:
        """A kubelet is back: it ends what was to be ended and reports what runs."""
        for worker in self.workers_on(node):
            if worker.current()["metadata"].get("deletionTimestamp"):
                worker.terminate()
            else:
                worker.touched()

    def _on_event(self, event: Event) -> None:
        pod, uid = event.obj, event.obj["metadata"]["uid"]
        machine = self._world.machines.get(pod["spec"].get("nodeName") or "")
        if machine is None:
            return
        if event.type == "DELETED":
            worker = self._workers.pop(uid, None)
            if worker is not None:
                worker.drop()
        elif pod["metadata"].get("deletionTimestamp"):
            self._world.driver.soon(("terminate", uid), lambda: self._terminate(pod))
        elif uid not in self._workers and not is_finished(pod):
            self._world.driver.soon(("adopt", uid), lambda: self._adopt(pod))

    def _adopt(self, pod: Obj) -> None:
        uid = pod["metadata"]["uid"]
        machine = self._world.machines[pod["spec"]["nodeName"]]
        if uid in self._workers or machine.down:
            return
        found = self._world.store.find("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        if found is None or found["metadata"]["uid"] != uid:
            return
        self._addresses += 1
        count = self._addresses
        address = f"10.{128 + count // 64_000 % 100}.{count // 250 % 256}.{count % 250 + 2}"
        worker = PodWorker(self._world, found, machine, self._programs, address)
        self._workers[uid] = worker
        worker.begin()

    def _terminate(self, pod: Obj) -> None:
        worker = self._workers.get(pod["metadata"]["uid"])
        machine = self._world.machines[pod["spec"]["nodeName"]]
        if machine.down:
            return
        if worker is not None:
            worker.terminate()
            return
        meta = pod["metadata"]
        found = self._world.store.find("Pod", meta["namespace"], meta["name"])
        if found is not None and found["metadata"]["uid"] == meta["uid"]:
            self._world.store.delete("Pod", meta["namespace"], meta["name"], grace_seconds=0)
