"""One pod on its node: admission by kubelet, sandbox, init containers, containers, the end."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.simulation import surroundings
from sandbox.kubernetes.simulation.containers import Container, Role
from sandbox.kubernetes.simulation.driver import Timer
from sandbox.kubernetes.simulation.gpu_runtime import chosen_cards, sandbox_problem
from sandbox.kubernetes.simulation.machines import Machine
from sandbox.kubernetes.simulation.programs import Exit, ProgramCatalogue
from sandbox.kubernetes.simulation.quantities import amounts, pod_requests
from sandbox.kubernetes.simulation.view import controller_of
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]

_RETRY_S = 15.0
_STOP_S = 0.5


class PodWorker:
    """What kubelet knows and does about one pod."""

    def __init__(self, world: World, pod: Obj, machine: Machine, programs: ProgramCatalogue, ip: str) -> None:
        self.world = world
        self.pod = pod
        self.machine = machine
        self.programs = programs
        self.uid = str(pod["metadata"]["uid"])
        self.name = str(pod["metadata"]["name"])
        self.namespace = str(pod["metadata"]["namespace"])
        self.restart_policy = str(pod["spec"].get("restartPolicy", "Always"))
        owner = controller_of(pod)
        self.ends = (owner is not None and owner["kind"] == "Job") or self.restart_policy == "Never"
        self.address = machine.ip if pod["spec"].get("hostNetwork") else ip
        self.ip = ""
        self.started_at = world.now()
        self.containers = [Container(self, spec, Role.MAIN) for spec in pod["spec"]["containers"]]
        self.init = [Container(self, spec, _init_role(spec)) for spec in pod["spec"].get("initContainers") or []]
        self.rejected: tuple[str, str] | None = None
        self.stopping = False
        self._timers: list[Timer] = []

    def current(self) -> Obj:
        """The pod as it is stored now, or as it was last seen."""
        found = self.world.store.find("Pod", self.namespace, self.name)
        return found if found is not None and found["metadata"]["uid"] == self.uid else self.pod

    def find(self, container: str | None) -> Container | None:
        """A container by name; None names the first."""
        if container is None:
            return self.containers[0]
        return next((one for one in [*self.containers, *self.init] if one.name == container), None)

    def begin(self) -> None:
        """Admit the pod: give it its devices, or fail it as kubelet does."""
        node = self.world.view.nodes.get(self.machine.name)
        allocatable = amounts((node or {}).get("status", {}).get("allocatable"))
        for resource, count in pod_requests(self.pod["spec"]).items():
            if "/" not in resource or not count or resource not in allocatable:
                continue
            available = allocatable[resource]
            cards = tuple(chosen_cards(self.pod)) if resource.startswith("nvidia.com/") else ()
            if self.machine.assign(resource, self.uid, count, available, cards=cards) is None:
                free = max(available - len(self.machine.assigned.get(resource, {})), 0)
                self._reject(resource, count, free)
                return
        self.touched()
        self._mount()

    def _reject(self, resource: str, count: int, free: int) -> None:
        self.machine.release(self.uid)
        text = (
            f"Allocate failed due to requested number of devices unavailable for {resource}. "
            f"Requested: {count}, Available: {free}, which is unexpected"
        )
        self.rejected = ("UnexpectedAdmissionError", f"Pod was rejected: {text}")
        self._warn("UnexpectedAdmissionError", text)
        self.touched()

    def _mount(self) -> None:
        problem = surroundings.mount_problem(self.world.store, self.pod)
        if problem is not None:
            self._warn("FailedMount", problem)
            self._later(_RETRY_S, self._mount)
            return
        self._later(self.world.settings.sandbox_s, self._make_sandbox)

    def _make_sandbox(self) -> None:
        problem = sandbox_problem(self.world, self.pod, self.machine)
        if problem is not None:
            self._warn("FailedCreatePodSandBox", f"Failed to create pod sandbox: {problem}")
            self._later(_RETRY_S, self._make_sandbox)
            return
        self.ip = self.address
        self._advance()
        self.touched()

    def _advance(self) -> None:
        """Start what may start now: the next init container, or the containers proper."""
        for container in self.init:
            if not container.begun:
                container.begin()
                return
            passed = container.started if container.role is Role.SIDECAR else self._passed(container)
            if not passed:
                return
        for container in self.containers:
            if not container.begun:
                container.begin()

    @staticmethod
    def _passed(container: Container) -> bool:
        return container.done and container.exit_code == 0

    def touched(self) -> None:
        """Something about a container changed: move on and write the status, once for many changes."""
        self.world.driver.soon(("pod", self.uid), self._publish)

    def _publish(self) -> None:
        if self.stopping:
            return
        if self.ip and self.rejected is None:
            self._advance()
        status, now = self._status(), self.world.now()

        def write(current: Obj) -> None:
            former = {row["type"]: row for row in (current.get("status") or {}).get("conditions") or []}
            for row in status["conditions"]:
                same = former.get(row["type"])
                kept = same is not None and same["status"] == row["status"]
                row["lastTransitionTime"] = same["lastTransitionTime"] if same is not None and kept else now
            current["status"] = {**(current.get("status") or {}), **status}

        self.world.change(self.pod, write, subresource="status")
        if status["phase"] in ("Succeeded", "Failed"):
            self.machine.release(self.uid)

    def _status(self) -> Obj:
        phase = self._phase()
        ready = phase == "Running" and all(container.ready and container.running for container in self.containers)
        initialized = all(one.started if one.role is Role.SIDECAR else self._passed(one) for one in self.init)
        unready = [container.name for container in self.containers if not container.ready]
        reason = "PodCompleted" if phase == "Succeeded" else "ContainersNotReady"
        message = "" if phase == "Succeeded" else f"containers with unready status: [{' '.join(unready)}]"
        incomplete = [one.name for one in self.init if not self._passed(one)]
        status: Obj = {
            "phase": phase,
            "hostIP": self.machine.ip,
            "hostIPs": [{"ip": self.machine.ip}],
            "startTime": self.started_at,
            "qosClass": _quality(self.pod["spec"]),
            "conditions": [
                _condition("PodReadyToStartContainers", bool(self.ip)),
                _condition("Initialized", initialized, "ContainersNotInitialized",
                           f"containers with incomplete status: [{' '.join(incomplete)}]"),
                _condition("Ready", ready, reason, message),
                _condition("ContainersReady", ready, reason, message),
                _condition("PodScheduled", True),
            ],
            "containerStatuses": [self._container_status(container) for container in self.containers],
        }  # fmt: skip
        if self.init:
            status["initContainerStatuses"] = [container.status() for container in self.init]
        if self.ip:
            status |= {"podIP": self.ip, "podIPs": [{"ip": self.ip}]}
        if self.rejected is not None:
            status |= {"reason": self.rejected[0], "message": self.rejected[1]}
        return status

    def _container_status(self, container: Container) -> Obj:
        status = container.status()
        if self.init and not container.begun and "waiting" in status["state"]:
            status["state"] = {"waiting": {"reason": "PodInitializing"}}
        return status

    def _phase(self) -> str:
        if self.rejected is not None:
            return "Failed"
        failed = any(one.role is Role.INIT and one.done and one.exit_code for one in self.init)
        if failed:
            return "Failed"
        if all(container.done for container in self.containers):
            return "Failed" if any(container.exit_code for container in self.containers) else "Succeeded"
        once = all(container.attempt or container.previous for container in self.containers)
        return "Running" if once else "Pending"

    def terminate(self) -> None:
        """Graceful deletion: preStop, SIGTERM, then the object goes."""
        if self.stopping:
            return
        self.stopping = True
        meta = self.current()["metadata"]
        grace = float(meta.get("deletionGracePeriodSeconds") or 0)
        pauses = [
            float(((container.spec.get("lifecycle") or {}).get("preStop") or {}).get("sleep", {}).get("seconds", 0))
            for container in self.containers
        ]
        for container in self.containers:
            if container.running:
                text = f"Stopping container {container.name}"
                self.world.events.normal(self.pod, "Killing", text, source="kubelet", host=self.machine.name)
        self._later(min(grace, max(pauses, default=0.0) + _STOP_S), self._finish)

    def _finish(self) -> None:
        self.drop()
        found = self.world.store.find("Pod", self.namespace, self.name)
        if found is not None and found["metadata"]["uid"] == self.uid:
            self.world.store.delete("Pod", self.namespace, self.name, grace_seconds=0)

    def drop(self) -> None:
        """Forget the pod: nothing of it runs, its devices are free."""
        self.stopping = True
        for timer in self._timers:
            timer.cancel()
        for container in [*self.init, *self.containers]:
            container.halt()
            if container.attempt is not None and container.running:
                container.attempt.ended = self.world.driver.seconds()
                container.attempt.exit = Exit(0.0, 143)
        self.machine.release(self.uid)

    def _later(self, seconds: float, work: Any) -> None:
        self._timers = [timer for timer in self._timers if timer.work is not None]
        self._timers.append(self.world.after(seconds, work))

    def _warn(self, reason: str, message: str) -> None:
        self.world.events.warning(self.pod, reason, message, source="kubelet", host=self.machine.name)


def _init_role(spec: Obj) -> Role:
    return Role.SIDECAR if spec.get("restartPolicy") == "Always" else Role.INIT


def _condition(kind: str, holds: bool, reason: str = "", message: str = "") -> Obj:
    row: Obj = {"type": kind, "status": "True" if holds else "False", "lastProbeTime": None}
    if not holds and reason:
        row |= {"reason": reason, "message": message}
    return row


def _quality(spec: Obj) -> str:
    resources = [container.get("resources") or {} for container in spec["containers"]]
    if not any(row.get("requests") or row.get("limits") for row in resources):
        return "BestEffort"
    guaranteed = all(
        {"cpu", "memory"} <= set(row.get("limits") or {})
        and all((row.get("requests") or row["limits"]).get(name) == row["limits"][name] for name in ("cpu", "memory"))
        for row in resources
    )
    return "Guaranteed" if guaranteed else "Burstable"
