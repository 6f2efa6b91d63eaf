"""Startup, readiness and liveness probes, ticking only while an answer can still change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sandbox.kubernetes.simulation.driver import Timer
from sandbox.kubernetes.simulation.programs import Program, Request
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Of one probe: good, or kubelet's text about why not."""

    good: bool
    message: str = ""


def ask(program: Program, probe: Obj, container: Obj, *, address: str, age: float) -> Verdict:
    """Probe a program of that age as kubelet would. gRPC probes count as TCP."""
    if "exec" in probe:
        return Verdict(program.is_healthy(age), "command exited with 1")
    http = probe.get("httpGet")
    target = http or probe.get("tcpSocket") or probe.get("grpc") or {}
    port = _port(target.get("port"), container)
    path = urlsplit((http or {}).get("path") or "/")
    reply = program.reply(Request("GET", path.path, port, query=path.query), age)
    limit = float(probe.get("timeoutSeconds", 1))
    if reply is None:
        dialled = f"dial tcp {address}:{port}: connect: connection refused"
        scheme = str((http or {}).get("scheme", "HTTP")).lower()
        return Verdict(False, f'Get "{scheme}://{address}:{port}{path.path}": {dialled}' if http else dialled)
    if http is None:
        return Verdict(True)
    if reply.delay >= limit:
        scheme = str(http.get("scheme", "HTTP")).lower()
        url = f"{scheme}://{address}:{port}{path.path}"
        return Verdict(
            False, f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        )  # fmt: skip
    if 200 <= reply.status < 400:
        return Verdict(True)
    return Verdict(False, f"HTTP probe failed with statuscode: {reply.status}")


def _port(port: Any, container: Obj) -> int:
    if isinstance(port, str) and not port.isdigit():
        for declared in container.get("ports") or []:
            if declared.get("name") == port:
                return int(declared["containerPort"])
        return 0
    return int(port or 0)


class Prober:
    """One probe of one running container. `decided(True)` once it passes, `decided(False)` once it has failed often
    enough; every failure is told to `failed`. Ticks stop when the program has settled and so has the result.
    """

    def __init__(
        self, world: World, probe: Obj, *, check: Callable[[], Verdict], settled: Callable[[], bool],
        decided: Callable[[bool], None], failed: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._world = world
        self._probe = probe
        self._check = check
        self._settled = settled
        self._decided = decided
        self._failed = failed
        self._good = self._bad = 0
        self._stopped = False
        self._timer: Timer | None = world.after(float(probe.get("initialDelaySeconds", 0)) or 0.05, self._tick)

    def stop(self) -> None:
        """Ask no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        verdict = self._check()
        needed = int(self._probe.get("successThreshold", 1)), int(self._probe.get("failureThreshold", 3))
        if verdict.good:
            self._good, self._bad = self._good + 1, 0
        else:
            self._good, self._bad = 0, self._bad + 1
            self._failed(verdict.message)
        undecided = self._good < needed[0] if verdict.good else self._bad < needed[1]
        if not undecided and (self._good == needed[0] or self._bad == needed[1]):
            self._decided(verdict.good)
        if not self._stopped and (undecided or not self._settled()):
            self._timer = self._world.after(float(self._probe.get("periodSeconds", 10)), self._tick)
