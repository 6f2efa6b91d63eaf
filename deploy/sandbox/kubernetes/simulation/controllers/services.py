"""Services: cluster IPs, load balancer addresses, and the endpoints behind them."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation.selectors import subset
from sandbox.kubernetes.simulation.view import is_finished, is_ready
from sandbox.kubernetes.simulation.world import World, owner_reference

Obj = dict[str, Any]

_BALANCER_S = 3.0
_SETTLE_S = 0.1


class ServiceController:
    """Gives addresses to services and writes one Endpoints and one EndpointSlice for each with a selector."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._given = 0
        self._balancers = 0
        self._stop = world.store.subscribe(self._on_event, kinds=("Service", "Pod"))

    def stop(self) -> None:
        """Listen no longer."""
        self._stop()

    def _on_event(self, event: Event) -> None:
        meta = event.obj["metadata"]
        if event.obj["kind"] == "Service":
            if event.type != "DELETED":
                self._wake(meta["namespace"], meta["name"])
            return
        if not _matters(event):
            return
        labels = meta.get("labels") or {}
        for service in self._world.store.list("Service", meta["namespace"]):
            selector = service["spec"].get("selector")
            if selector and subset(selector, labels):
                self._wake(meta["namespace"], service["metadata"]["name"])

    def _wake(self, namespace: str, name: str) -> None:
        self._world.driver.coalesce(
            ("service", namespace, name), _SETTLE_S, lambda: self._reconcile(namespace, name)
        )  # fmt: skip

    def _reconcile(self, namespace: str, name: str) -> None:
        service = self._world.store.find("Service", namespace, name)
        if service is None or service["metadata"].get("deletionTimestamp"):
            return
        kind = service["spec"].get("type", "ClusterIP")
        if kind != "ExternalName" and not service["spec"].get("clusterIP"):
            service = self._address(service)
        ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress")
        if kind == "LoadBalancer" and not ingress:
            self._world.after(_BALANCER_S, lambda: self._balance(service))
        if service["spec"].get("selector"):
            self._publish(service)

    def _address(self, service: Obj) -> Obj:
        self._given += 1
        address = f"10.96.{self._given // 250 + 1}.{self._given % 250 + 1}"

        def write(current: Obj) -> None:
            if not current["spec"].get("clusterIP"):
                current["spec"].update(clusterIP=address, clusterIPs=[address], ipFamilies=["IPv4"])

        return self._world.change(service, write) or service

    def _balance(self, service: Obj) -> None:
        self._balancers += 1
        number = self._balancers
        row = {"ip": f"203.0.113.{number % 250 + 1}", "ipMode": "VIP"}

        def write(current: Obj) -> None:
            status = current.setdefault("status", {})
            if not (status.get("loadBalancer") or {}).get("ingress"):
                status["loadBalancer"] = {"ingress": [row]}

        if self._world.change(service, write, subresource="status") is not None:
            text = "Ensured load balancer"
            self._world.events.normal(service, "EnsuredLoadBalancer", text, source="service-controller")

    def _publish(self, service: Obj) -> None:
        meta = service["metadata"]
        pods = [
            pod for pod in self._world.store.list("Pod", meta["namespace"])
            if subset(service["spec"]["selector"], pod["metadata"].get("labels") or {})
            and (pod.get("status") or {}).get("podIP") and not is_finished(pod)
        ]  # fmt: skip
        pods.sort(key=lambda pod: str(pod["metadata"]["name"]))
        ports = [_port(port, pods) for port in service["spec"].get("ports") or []]
        self._write(_endpoints(service, pods, ports))
        self._write(_slice(service, pods, ports))

    def _write(self, wanted: Obj) -> None:
        meta = wanted["metadata"]
        if self._world.store.find(wanted["kind"], meta["namespace"], meta["name"]) is None:
            self._world.store.create(wanted)
            return

        def replace(current: Obj) -> None:
            current.update({key: value for key, value in wanted.items() if key != "metadata"})

        self._world.store.update(wanted["kind"], meta["namespace"], meta["name"], replace)


def _matters(event: Event) -> bool:
    """Whether endpoints could change: address, readiness, labels, or the pod's existence."""
    if event.type != "MODIFIED" or event.old is None:
        return True
    before, after = event.old, event.obj
    return (
        is_ready(before) != is_ready(after)
        or is_finished(before) != is_finished(after)
        or (before.get("status") or {}).get("podIP") != (after.get("status") or {}).get("podIP")
        or before["metadata"].get("labels") != after["metadata"].get("labels")
    )


def _port(port: Obj, pods: list[Obj]) -> Obj:
    return {
        "name": port.get("name", ""),
        "port": target_port(port, pods[0]) if pods else int(port["port"]),
        "protocol": port.get("protocol", "TCP"),
    }


def target_port(port: Obj, pod: Obj) -> int:
    """The container port that a service port leads to in a pod; 0 when its name is unknown there."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int) or str(target).isdigit():
        return int(target)
    for container in pod["spec"]["containers"]:
        for declared in container.get("ports") or []:
            if declared.get("name") == target:
                return int(declared["containerPort"])
    return 0


def _reference(pod: Obj) -> Obj:
    meta = pod["metadata"]
    return {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}


def _endpoints(service: Obj, pods: list[Obj], ports: list[Obj]) -> Obj:
    meta = service["metadata"]
    anyway = bool(service["spec"].get("publishNotReadyAddresses"))
    groups: Obj = {"addresses": [], "notReadyAddresses": []}
    for pod in pods:
        row = {"ip": pod["status"]["podIP"], "nodeName": pod["spec"]["nodeName"], "targetRef": _reference(pod)}
        groups["addresses" if anyway or is_ready(pod) else "notReadyAddresses"].append(row)
    subset_ = {key: rows for key, rows in groups.items() if rows}
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "labels": meta.get("labels") or {},
            "ownerReferences": [owner_reference(service)],
        },
        "subsets": [{**subset_, "ports": ports}] if subset_ else [],
    }  # fmt: skip


def _slice(service: Obj, pods: list[Obj], ports: list[Obj]) -> Obj:
    meta = service["metadata"]
    labels = {
        **(meta.get("labels") or {}),
        "kubernetes.io/service-name": meta["name"],
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{meta['name']}-1", "namespace": meta["namespace"], "labels": labels,
            "ownerReferences": [owner_reference(service)],
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [
            {
                "addresses": [pod["status"]["podIP"]],
                "conditions": {
                    "ready": is_ready(pod),
                    "serving": is_ready(pod),
                    "terminating": bool(pod["metadata"].get("deletionTimestamp")),
                },
                "nodeName": pod["spec"]["nodeName"],
                "targetRef": _reference(pod),
            }
            for pod in pods
        ],
    }  # fmt: skip
