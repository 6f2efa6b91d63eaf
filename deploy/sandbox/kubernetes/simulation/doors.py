"""What the API server asks of kubelets: logs, exec, proxied requests, resource metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

from sandbox.kubernetes.contracts import ExecResult, ProxyResponse
from sandbox.kubernetes.errors import BadRequest, ServiceUnavailable
from sandbox.kubernetes.simulation.containers import Attempt, Container
from sandbox.kubernetes.simulation.controllers.services import target_port
from sandbox.kubernetes.simulation.kubelet import KubeletFleet
from sandbox.kubernetes.simulation.pods import PodWorker
from sandbox.kubernetes.simulation.programs import Request
from sandbox.kubernetes.simulation.selectors import subset
from sandbox.kubernetes.simulation.shell import run_command
from sandbox.kubernetes.simulation.view import is_ready
from sandbox.kubernetes.simulation.world import World, stamp

Obj = dict[str, Any]

_FOLLOW_S = 0.05
"""Real seconds between two looks of `logs -f`; the virtual clock may be much faster."""


class KubeletDoors:
    """Implements `sandbox.kubernetes.contracts.Kubelets`."""

    def __init__(self, world: World, kubelets: KubeletFleet) -> None:
        self._world = world
        self._kubelets = kubelets

    async def logs(
        self, pod: Obj, *, container: str | None, previous: bool, follow: bool, tail_lines: int | None,
        since_seconds: int | None, since_time: datetime | None, timestamps: bool, limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:  # fmt: skip
        """See the contract."""
        found = self._container(pod, container)
        attempt = self._attempt(pod, found, previous=previous)
        now = self._world.driver.seconds()
        after = -1.0
        if since_seconds is not None:
            after = now - since_seconds - attempt.started
        elif since_time is not None:
            after = since_time.timestamp() - attempt.started
        lines = attempt.log(now, after=after)
        if tail_lines is not None:
            lines = lines[len(lines) - min(tail_lines, len(lines)) :]
        left = limit_bytes
        text = _render(lines, timestamps=timestamps)
        yield text if left is None else text[:left]
        if left is not None:
            left -= len(text)
        while follow and not previous and (left is None or left > 0):
            seen = attempt.age(now)
            if attempt.ended is not None and now >= attempt.ended:
                return
            await asyncio.sleep(_FOLLOW_S)
            now = self._world.driver.seconds()
            text = _render(attempt.log(now, after=seen), timestamps=timestamps)
            if text:
                yield text if left is None else text[:left]
                left = None if left is None else left - len(text)

    async def exec(self, pod: Obj, *, container: str | None, command: list[str]) -> ExecResult:
        """See the contract. A handful of commands is understood (`shell.run_command`)."""
        found = self._container(pod, container)
        if not found.running:
            raise BadRequest(f'container not found ("{found.name}")')
        return run_command(self._world, found, command)

    async def proxy(
        self, namespace: str, service_or_pod: Obj, port: str, method: str, path: str, query: str,
        headers: dict[str, str], body: bytes,
    ) -> ProxyResponse:  # fmt: skip
        """See the contract."""
        worker, number = self._target(namespace, service_or_pod, port)
        container = _listener(worker, number)
        attempt = container.attempt
        age = 0.0 if attempt is None else attempt.age(self._world.driver.seconds())
        request = Request(method, f"/{path.lstrip('/')}", number, query, body, headers)
        reply = attempt.program.reply(request, age) if attempt is not None and container.running else None
        if reply is None or worker.machine.down:
            problem = "i/o timeout" if worker.machine.down else "connect: connection refused"
            raise ServiceUnavailable(f"error trying to reach service: dial tcp {worker.ip}:{number}: {problem}")
        if reply.delay:
            await self._world.clock.sleep(reply.delay)
        return ProxyResponse(reply.status, {"content-type": reply.content_type, **reply.headers}, reply.body)

    def metrics_nodes(self) -> list[Obj]:
        """See the contract."""
        load = {name: [200, 2 << 30] for name in self._world.view.nodes}
        for worker in self._kubelets.workers():
            for container in worker.containers:
                usage = load.get(worker.machine.name)
                if usage is not None and container.attempt is not None and container.running:
                    used = container.attempt.program.usage(container.attempt.age(self._world.driver.seconds()))
                    usage[0] += used.cpu_milli
                    usage[1] += used.memory_bytes
        return [
            self._metrics("NodeMetrics", {"name": name, "labels": self._world.view.nodes[name]["metadata"]["labels"]})
            | {"usage": _usage(*usage)}
            for name, usage in sorted(load.items())
            if not self._world.machines[name].down
        ]

    def metrics_pods(self) -> list[Obj]:
        """See the contract."""
        rows = []
        for worker in self._kubelets.workers():
            containers = []
            for container in worker.containers:
                if container.attempt is not None and container.running:
                    used = container.attempt.program.usage(container.attempt.age(self._world.driver.seconds()))
                    containers.append({"name": container.name, "usage": _usage(used.cpu_milli, used.memory_bytes)})
            if containers:
                labels = worker.pod["metadata"].get("labels") or {}
                meta = {"name": worker.name, "namespace": worker.namespace, "labels": labels}
                rows.append(self._metrics("PodMetrics", meta) | {"containers": containers})
        return rows

    def _metrics(self, kind: str, meta: Mapping[str, Any]) -> Obj:
        now = self._world.now()
        return {
            "apiVersion": "metrics.k8s.io/v1beta1", "kind": kind, "metadata": {**meta, "creationTimestamp": now},
            "timestamp": now, "window": "15.0s",
        }  # fmt: skip

    def _container(self, pod: Obj, name: str | None) -> Container:
        pod_name = pod["metadata"]["name"]
        names = [container["name"] for container in pod["spec"]["containers"]]
        if name is None and len(names) > 1:
            raise BadRequest(
                f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(names)}]"
            )  # fmt: skip
        everything = [*names, *(container["name"] for container in pod["spec"].get("initContainers") or [])]
        if name is not None and name not in everything:
            raise BadRequest(f"container {name} is not valid for pod {pod_name}")
        if not pod["spec"].get("nodeName"):
            raise BadRequest(f"pod {pod_name} does not have a host assigned")
        worker = self._kubelets.worker(pod)
        found = worker.find(name) if worker is not None else None
        if found is None:
            raise BadRequest(
                f'container "{name or names[0]}" in pod "{pod_name}" is waiting to start: ContainerCreating'
            )  # fmt: skip
        if found.pod.machine.down:
            address = (
                f"https://{found.pod.machine.ip}:10250/containerLogs/{found.pod.namespace}/{pod_name}/{found.name}"
            )
            raise ServiceUnavailable(f'Get "{address}": dial tcp {found.pod.machine.ip}:10250: i/o timeout')
        return found

    def _attempt(self, pod: Obj, container: Container, *, previous: bool) -> Attempt:
        name, pod_name = container.name, pod["metadata"]["name"]
        if previous:
            if container.last_state and container.attempt is not None and not container.running:
                # Between a crash and the next start kubelet counts the crashed attempt as the previous one.
                return container.attempt
            if container.previous is None:
                raise BadRequest(f'previous terminated container "{name}" in pod "{pod_name}" not found')
            return container.previous
        attempt = container.attempt or container.previous
        if attempt is not None:
            return attempt
        reason, message = container.waiting
        if reason in ("ErrImagePull", "ImagePullBackOff"):
            message = "trying and failing to pull image"
            raise BadRequest(f'container "{name}" in pod "{pod_name}" is waiting to start: {message}')
        if container.pod.init and not container.begun:
            reason = "PodInitializing"
        raise BadRequest(f'container "{name}" in pod "{pod_name}" is waiting to start: {reason}')

    def _target(self, namespace: str, target: Obj, port: str) -> tuple[PodWorker, int]:
        name = target["metadata"]["name"]
        if target["kind"] == "Pod":
            worker = self._kubelets.worker(target)
            if worker is None or not worker.ip:
                raise ServiceUnavailable(f'address not allowed: pod "{name}" has no IP yet')
            return worker, _number(port, target)
        selector = target["spec"].get("selector") or {}
        pods = [
            pod for pod in self._world.store.list("Pod", namespace)
            if selector and subset(selector, pod["metadata"].get("labels") or {}) and is_ready(pod)
        ]  # fmt: skip
        ports = target["spec"].get("ports") or []
        chosen = next((row for row in ports if port in ("", str(row["port"]), row.get("name"))), None)
        if chosen is None:
            raise ServiceUnavailable(f'no service port "{port}" found for service "{name}"')
        for pod in pods:
            worker = self._kubelets.worker(pod)
            if worker is not None:
                return worker, target_port(chosen, pod)
        raise ServiceUnavailable(f'no endpoints available for service "{name}"')


def _number(port: str, pod: Obj) -> int:
    if port.isdigit():
        return int(port)
    for container in pod["spec"]["containers"]:
        for declared in container.get("ports") or []:
            if port in ("", declared.get("name")):
                return int(declared["containerPort"])
    return 80


def _listener(worker: PodWorker, port: int) -> Container:
    for container in worker.containers:
        if any(int(row["containerPort"]) == port for row in container.spec.get("ports") or []):
            return container
    return worker.containers[0]


def _render(lines: list[tuple[float, str]], *, timestamps: bool) -> bytes:
    if timestamps:
        return b"".join(f"{_nano(moment)} {text}\n".encode() for moment, text in lines)
    return b"".join(f"{text}\n".encode() for _, text in lines)


def _nano(moment: float) -> str:
    return f"{stamp(moment)[:-1]}.{int(moment % 1 * 1e9):09d}Z"


def _usage(cpu_milli: int, memory_bytes: int) -> dict[str, str]:
    return {"cpu": f"{cpu_milli}m", "memory": f"{memory_bytes >> 10}Ki"}
