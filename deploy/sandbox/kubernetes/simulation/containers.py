"""One container of a pod: pulling, starting, probing, crashing, backing off."""

from __future__ import annotations

import bisect
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from sandbox.kubernetes.simulation import images
from sandbox.kubernetes.simulation.driver import Timer
from sandbox.kubernetes.simulation.machines import Machine
from sandbox.kubernetes.simulation.probes import Prober, Verdict, ask
from sandbox.kubernetes.simulation.programs import Exit, Launch, Program, ProgramCatalogue
from sandbox.kubernetes.simulation.surroundings import ConfigProblem, environment
from sandbox.kubernetes.simulation.world import World, stamp

Obj = dict[str, Any]

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S, _FORGIVEN_AFTER_S = 10.0, 300.0, 600.0
_CONFIG_RETRY_S = 10.0
_MESSAGE_BYTES, _MESSAGE_LINES = 2048, 80


class Role(StrEnum):
    """How a container takes part in its pod's life."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"


@dataclass
class Attempt:
    """One start of a container and its log; times are virtual seconds since the epoch."""

    program: Program
    started: float
    ended: float | None = None
    exit: Exit | None = None
    said: list[tuple[float, str]] = field(default_factory=list)

    def age(self, now: float) -> float:
        """Seconds it has run at that moment."""
        return (now if self.ended is None else min(now, self.ended)) - self.started

    def log(self, now: float, *, after: float = -1.0) -> list[tuple[float, str]]:
        """Lines written in the ages (after, age], with the moment of each."""
        until = self.age(now)
        scripted = [line for line in self.program.lines if after < line.at <= until]
        scripted += self.program.later_lines(max(after, 0.0), until)
        lines = [(self.started + line.at, line.text) for line in scripted]
        lines += [row for row in self.said if after < row[0] - self.started <= until]
        return sorted(lines, key=lambda row: row[0])

    def say(self, moment: float, text: str) -> None:
        """Add a line that no script foresaw: an injected fault, an access log."""
        bisect.insort(self.said, (moment, text))


class Pod(Protocol):
    """What a container sees of its pod."""

    world: World
    machine: Machine
    programs: ProgramCatalogue
    pod: Obj
    uid: str
    name: str
    namespace: str
    ip: str
    restart_policy: str
    ends: bool
    init: list[Container]

    def current(self) -> Obj:
        """The pod as it is stored now, or as it was last seen."""

    def touched(self) -> None:
        """Hear that something about a container changed."""


class Container:
    """The state machine of one container. Everything it decides is told to its pod through `pod.touched()`."""

    def __init__(self, pod: Pod, spec: Obj, role: Role) -> None:
        self.pod = pod
        self.spec = spec
        self.role = role
        self.name = str(spec["name"])
        self.attempt: Attempt | None = None
        self.previous: Attempt | None = None
        self.restarts = 0
        self.waiting: tuple[str, str] = ("ContainerCreating", "")
        self.last_state: Obj = {}
        self.ready = False
        self.started = False
        self.begun = False
        self._timers: list[Timer] = []
        self._probers: list[Prober] = []
        self._backoff = 0.0
        self._pull_backoff = 0.0

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.attempt is not None and self.attempt.ended is None

    @property
    def done(self) -> bool:
        """Whether the process has ended and will not be started again."""
        return self.attempt is not None and self.attempt.ended is not None and not self._restarts_after(self.exit_code)

    @property
    def exit_code(self) -> int:
        """Exit code of the newest ended attempt."""
        return self.attempt.exit.code if self.attempt and self.attempt.exit else 0

    def begin(self) -> None:
        """Pull the image when needed, then start."""
        self.begun = True
        image, policy = str(self.spec["image"]), self.spec.get("imagePullPolicy", "IfNotPresent")
        if not images.is_valid(image):
            text = f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}"'
            self._wait("InvalidImageName", text)
            self._warn("Failed", "Error: InvalidImageName")
            return
        present = image in self.pod.machine.images
        if present and policy != "Always":
            self._say("Pulled", f'Container image "{image}" already present on machine')
            self._create()
            return
        if policy == "Never":
            self._wait("ErrImageNeverPull", f'Container image "{image}" is not present with pull policy of Never')
            return
        self._say("Pulling", f'Pulling image "{image}"')
        outcome = images.pull(image, self.pod.world)
        seconds = 0.4 if present and not outcome.error else outcome.seconds
        self._later(seconds, lambda: self._pulled(image, outcome, seconds))

    def _pulled(self, image: str, outcome: images.Pull, seconds: float) -> None:
        if outcome.error:
            self._warn("Failed", outcome.error)
            self._warn("Failed", "Error: ErrImagePull")
            self._wait("ErrImagePull", outcome.error.partition('": ')[2] or outcome.error)
            self._pull_backoff = min(max(self._pull_backoff * 2, _FIRST_BACKOFF_S), _LONGEST_BACKOFF_S)
            self._later(1.5, lambda: self._pull_backs_off(image))
            return
        self.pod.machine.images.add(image)
        took = f"{seconds:.3f}s ({seconds:.3f}s including waiting)"
        self._say("Pulled", f'Successfully pulled image "{image}" in {took}. Image size: {outcome.size_bytes} bytes.')
        self._create()

    def _pull_backs_off(self, image: str) -> None:
        text = f'Back-off pulling image "{image}"'
        self.pod.world.events.normal(
            self.pod.pod, "BackOff", text, source="kubelet", host=self.pod.machine.name
        )  # fmt: skip
        self._warn("Failed", "Error: ImagePullBackOff")
        self._wait("ImagePullBackOff", text)
        self._later(self._pull_backoff, self.begin)

    def _create(self) -> None:
        try:
            env = environment(self.pod.world.store, self.pod.current(), self.spec)
        except ConfigProblem as problem:
            self._wait("CreateContainerConfigError", str(problem))
            self._warn("Failed", f"Error: {problem}")
            self._later(_CONFIG_RETRY_S, self._create)
            return
        self._later(self.pod.world.settings.start_s, lambda: self._start(env))

    def _start(self, env: dict[str, str]) -> None:
        pod = self.pod
        launch = Launch(
            world=pod.world, pod=pod.current(), container=self.spec, machine=pod.machine,
            devices=pod.machine.devices_of(pod.uid), env=env, restarts=self.restarts,
        )  # fmt: skip
        program = pod.programs.start(launch, ends=pod.ends or self.role is Role.INIT)
        now = pod.world.driver.seconds()
        self._say("Created", f"Container created: {self.name}")
        self._say("Started", f"Container started: {self.name}")
        self.attempt = Attempt(program, now)
        self.waiting = ("", "")
        self.started = "startupProbe" not in self.spec
        self.ready = "readinessProbe" not in self.spec and self.started
        if program.exit is not None:
            ending = program.exit
            self._later(ending.at, lambda: self.end(ending))
        self._probe_start()
        pod.touched()

    def _probe_start(self) -> None:
        if "startupProbe" in self.spec:
            self._prober("Startup", self.spec["startupProbe"], self._startup_decided)
        else:
            self._probe_running()

    def _startup_decided(self, good: bool) -> None:
        if not good:
            self.kill("Killing", f"Container {self.name} failed startup probe, will be restarted")
            return
        self.started = True
        self.ready = "readinessProbe" not in self.spec
        for prober in self._probers:
            prober.stop()
        self._probers.clear()
        self._probe_running()
        self.pod.touched()

    def _probe_running(self) -> None:
        if "readinessProbe" in self.spec:
            self._prober("Readiness", self.spec["readinessProbe"], self._readiness_decided)
        if "livenessProbe" in self.spec:
            self._prober("Liveness", self.spec["livenessProbe"], self._liveness_decided)

    def _readiness_decided(self, good: bool) -> None:
        self.ready = good
        self.pod.touched()

    def _liveness_decided(self, good: bool) -> None:
        if not good:
            self.kill("Killing", f"Container {self.name} failed liveness probe, will be restarted")

    def _prober(self, kind: str, probe: Obj, decided: Any) -> None:
        attempt = self.attempt
        if attempt is None:
            return
        world = self.pod.world

        def check() -> Verdict:
            age = attempt.age(world.driver.seconds())
            return ask(attempt.program, probe, self.spec, address=self.pod.ip, age=age)

        self._probers.append(Prober(
            world, probe, check=check, decided=decided,
            settled=lambda: attempt.program.is_settled(attempt.age(world.driver.seconds())),
            failed=lambda message: self._warn("Unhealthy", f"{kind} probe failed: {message}"),
        ))  # fmt: skip

    def kill(self, reason: str, message: str) -> None:
        """Let kubelet end the process because of a probe: SIGTERM, then SIGKILL."""
        self._say(reason, message)
        if self.attempt is not None and self.running:
            self.attempt.say(self.pod.world.driver.seconds(), "KeyboardInterrupt: terminated")
        self.end(Exit(0.0, 137, "Error"))

    def end(self, ending: Exit) -> None:
        """The process is gone; start it again when the policy says so."""
        if self.attempt is None or not self.running:
            return
        self.halt()
        now = self.pod.world.driver.seconds()
        self.attempt.ended, self.attempt.exit = now, ending
        self.ready = self.started = False
        if self._restarts_after(ending.code):
            self._plan_restart(now - self.attempt.started)
        self.pod.touched()

    def _plan_restart(self, ran: float) -> None:
        wait = 0.0 if ran >= _FORGIVEN_AFTER_S else self._backoff
        self._backoff = min(max(wait * 2, _FIRST_BACKOFF_S), _LONGEST_BACKOFF_S)
        self.last_state = {"terminated": self.terminated(self.attempt)} if self.attempt else {}
        if wait:
            whose = f"{self.pod.name}_{self.pod.namespace}({self.pod.uid})"
            self.waiting = (
                "CrashLoopBackOff", f"back-off {_go_duration(wait)} restarting failed container={self.name} pod={whose}"
            )  # fmt: skip
            self._warn("BackOff", f"Back-off restarting failed container {self.name} in pod {whose}")
        self._later(wait or 0.05, self._restart)

    def _restart(self) -> None:
        self.restarts += 1
        self.previous, self.attempt = self.attempt, None
        self.waiting = self.waiting if self.waiting[0] else ("ContainerCreating", "")
        self.begin()

    def _restarts_after(self, code: int) -> bool:
        policy = self.pod.restart_policy
        if self.role is Role.SIDECAR:
            return True
        if self.role is Role.INIT:
            return code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    def halt(self) -> None:
        """Cancel everything that is planned for this container."""
        for timer in self._timers:
            timer.cancel()
        for prober in self._probers:
            prober.stop()
        self._timers.clear()
        self._probers.clear()

    def _later(self, seconds: float, work: Any) -> None:
        self._timers = [timer for timer in self._timers if timer.work is not None]
        self._timers.append(self.pod.world.after(seconds, work))

    def _wait(self, reason: str, message: str) -> None:
        self.waiting = (reason, message)
        self.pod.touched()

    def _say(self, reason: str, message: str) -> None:
        self.pod.world.events.normal(self.pod.pod, reason, message, source="kubelet", host=self.pod.machine.name)

    def _warn(self, reason: str, message: str) -> None:
        self.pod.world.events.warning(self.pod.pod, reason, message, source="kubelet", host=self.pod.machine.name)

    def status(self) -> Obj:
        """The containerStatuses entry."""
        reason, message = self.waiting
        state: Obj
        if self.attempt is not None and self.running:
            state = {"running": {"startedAt": stamp(self.attempt.started)}}
        elif self.attempt is not None and reason != "CrashLoopBackOff":
            state = {"terminated": self.terminated(self.attempt)}
        else:
            state = {"waiting": {"reason": reason or "ContainerCreating", **({"message": message} if message else {})}}
        image = str(self.spec["image"])
        identified = self.attempt or self.previous
        return {
            "name": self.name,
            "image": image,
            "imageID": f"{images.split(image)[0]}@sha256:{_digest(image)}" if identified else "",
            **({"containerID": f"containerd://{self._identity()}"} if identified else {}),
            "ready": self.ready and self.running if self.role is not Role.INIT else self.done and self.exit_code == 0,
            "restartCount": self.restarts,
            "started": self.started and self.running,
            "state": state,
            "lastState": self.last_state,
        }

    def terminated(self, attempt: Attempt | None) -> Obj:
        """The terminated state of an attempt, with the end of its log where the policy asks for that."""
        if attempt is None or attempt.exit is None or attempt.ended is None:
            return {}
        row = {
            "exitCode": attempt.exit.code,
            "reason": attempt.exit.word,
            "startedAt": stamp(attempt.started),
            "finishedAt": stamp(attempt.ended),
            "containerID": f"containerd://{self._identity()}",
        }
        if attempt.exit.code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            lines = [text for _, text in attempt.log(attempt.ended)][-_MESSAGE_LINES:]
            tail = ("\n".join(lines) + "\n").encode()[-_MESSAGE_BYTES:]
            row["message"] = tail.decode(errors="ignore")
        return row

    def _identity(self) -> str:
        return _digest(f"{self.pod.uid}/{self.name}/{self.restarts}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _go_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
