"""Scheduling as pure functions: what a node has left, why a pod does not fit, and the scheduler's sentence about it.

Reasons and message layout follow Kubernetes 1.36 (pkg/scheduler/framework, NodeResourcesFit, NodeAffinity,
TaintToleration, NodeUnschedulable, PodTopologySpread, InterPodAffinity).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.kubernetes.simulation.quantities import Resources, pod_requests
from sandbox.kubernetes.simulation.selectors import matches, node_selected, pinned_node, untolerated

Obj = dict[str, Any]

UNSCHEDULABLE = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
_NO_VICTIMS = "No preemption victims found for incoming pod"
_NOT_HELPFUL = "Preemption is not helpful for scheduling"


@dataclass
class NodeRoom:
    """One node as the scheduler sees it; `used` and the pods are kept by whoever binds."""

    name: str
    labels: dict[str, str]
    taints: list[Obj]
    unschedulable: bool
    allocatable: Resources
    used: Resources = field(default_factory=dict)
    pods: dict[str, Placed] = field(default_factory=dict)

    def add(self, uid: str, placed: Placed) -> None:
        """Count a pod that is bound here."""
        if uid not in self.pods:
            self.pods[uid] = placed
            for name, amount in placed.requests.items():
                self.used[name] = self.used.get(name, 0) + amount

    def remove(self, uid: str) -> None:
        """Give back what a pod held."""
        placed = self.pods.pop(uid, None)
        if placed is not None:
            for name, amount in placed.requests.items():
                self.used[name] -= amount


@dataclass(frozen=True)
class Placed:
    """What of a bound pod matters to the placement of others."""

    namespace: str
    labels: Mapping[str, str]
    requests: Resources
    host_ports: frozenset[int] = frozenset()
    anti_affinity: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Wish:
    """A pod to be placed, with everything the filters ask for computed once."""

    namespace: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    requests: Resources
    host_ports: frozenset[int]
    pinned: str | None
    spread: tuple[Mapping[str, Any], ...]
    anti_affinity: tuple[Mapping[str, Any], ...]
    affinity: tuple[Mapping[str, Any], ...]

    @property
    def placed(self) -> Placed:
        """The same pod once it is bound."""
        return Placed(self.namespace, self.labels, self.requests, self.host_ports, self.anti_affinity)


@dataclass(frozen=True)
class Refusal:
    """Why one node will not do, and whether removing pods from it could change that."""

    reasons: tuple[str, ...]
    preemptible: bool = False


def wish_of(pod: Obj, *, ignored: frozenset[str] = frozenset()) -> Wish:
    """Read a pod; resources in `ignored` are somebody else's to count."""
    spec, meta = pod["spec"], pod["metadata"]
    affinity = spec.get("affinity") or {}
    hard = "requiredDuringSchedulingIgnoredDuringExecution"
    return Wish(
        namespace=meta["namespace"],
        labels=meta.get("labels") or {},
        spec=spec,
        requests={name: amount for name, amount in pod_requests(spec).items() if amount and name not in ignored},
        host_ports=_host_ports(spec),
        pinned=pinned_node(spec),
        spread=tuple(
            rule for rule in spec.get("topologySpreadConstraints") or []
            if rule.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"
        ),
        anti_affinity=tuple((affinity.get("podAntiAffinity") or {}).get(hard) or ()),
        affinity=tuple((affinity.get("podAffinity") or {}).get(hard) or ()),
    )  # fmt: skip


def refusal(wish: Wish, node: NodeRoom) -> Refusal | None:
    """The first filter of the default profile that a node fails on its own, None when it passes them all."""
    if wish.pinned is not None and wish.pinned != node.name:
        return Refusal(("node(s) didn't satisfy plugin(s) [NodeAffinity]",))
    if node.unschedulable and untolerated([UNSCHEDULABLE], wish.spec):
        return Refusal(("node(s) were unschedulable",))
    if node.taints and untolerated(node.taints, wish.spec):
        return Refusal(("node(s) had untolerated taint(s)",))
    if not node_selected(wish.spec, node.name, node.labels):
        return Refusal(("node(s) didn't match Pod's node affinity/selector",))
    if wish.host_ports and any(wish.host_ports & placed.host_ports for placed in node.pods.values()):
        return Refusal(("node(s) didn't have free ports for the requested pod ports",), preemptible=True)
    return _resource_refusal(wish, node)


def _resource_refusal(wish: Wish, node: NodeRoom) -> Refusal | None:
    lacking: list[str] = []
    preemptible = True
    if len(node.pods) + 1 > node.allocatable.get("pods", 0):
        lacking.append("Too many pods")
    for name, amount in wish.requests.items():
        allocatable = node.allocatable.get(name, 0)
        if amount > allocatable - node.used.get(name, 0):
            lacking.append(f"Insufficient {name}")
            preemptible = preemptible and amount <= allocatable
    return Refusal(tuple(lacking), preemptible) if lacking else None


def topology_refusals(wish: Wish, nodes: Sequence[NodeRoom]) -> dict[str, Refusal]:
    """Nodes ruled out by the pods of other nodes: spread constraints and required pod (anti-)affinity."""
    refused: dict[str, Refusal] = {}
    for name, reason in _spread_refusals(wish, nodes):
        refused.setdefault(name, Refusal((reason,), preemptible=True))
    for rule in wish.anti_affinity:
        crowded = _topologies(rule, wish.namespace, nodes)
        for node in nodes:
            if node.labels.get(rule["topologyKey"]) in crowded:
                reason = "node(s) didn't match pod anti-affinity rules"
                refused.setdefault(node.name, Refusal((reason,), preemptible=True))
    for rule in wish.affinity:
        wanted = _topologies(rule, wish.namespace, nodes)
        alone = not wanted and matches(rule.get("labelSelector"), wish.labels)
        for node in nodes:
            if not alone and node.labels.get(rule["topologyKey"]) not in wanted:
                refused.setdefault(node.name, Refusal(("node(s) didn't match pod affinity rules",)))
    for name in _repelled(wish, nodes):
        reason = "node(s) didn't satisfy existing pods anti-affinity rules"
        refused.setdefault(name, Refusal((reason,), preemptible=True))
    return refused


def _spread_refusals(wish: Wish, nodes: Sequence[NodeRoom]) -> Iterable[tuple[str, str]]:
    for rule in wish.spread:
        key = rule["topologyKey"]
        counts: Counter[str] = Counter()
        for node in nodes:
            if key in node.labels and node_selected(wish.spec, node.name, node.labels):
                counts[node.labels[key]] += sum(
                    placed.namespace == wish.namespace and matches(rule.get("labelSelector"), placed.labels)
                    for placed in node.pods.values()
                )
        fewest = min(counts.values(), default=0)
        own = int(matches(rule.get("labelSelector"), wish.labels))
        for node in nodes:
            if key not in node.labels:
                yield node.name, "node(s) didn't match pod topology spread constraints (missing required label)"
            elif counts[node.labels[key]] + own - fewest > int(rule.get("maxSkew", 1)):
                yield node.name, "node(s) didn't match pod topology spread constraints"


def _topologies(rule: Mapping[str, Any], namespace: str, nodes: Sequence[NodeRoom]) -> set[str]:
    """The values of the rule's topology key where a pod that the rule selects already runs."""
    spaces = rule.get("namespaces") or [namespace]
    key = rule["topologyKey"]
    return {
        node.labels[key]
        for node in nodes
        if key in node.labels
        and any(
            placed.namespace in spaces and matches(rule.get("labelSelector"), placed.labels)
            for placed in node.pods.values()
        )
    }


def _repelled(wish: Wish, nodes: Sequence[NodeRoom]) -> set[str]:
    """Nodes whose running pods do not want this one near."""
    closed: set[tuple[str, str]] = set()
    for node in nodes:
        for placed in node.pods.values():
            for rule in placed.anti_affinity:
                spaces = rule.get("namespaces") or [placed.namespace]
                key = rule["topologyKey"]
                if key in node.labels and wish.namespace in spaces and matches(rule.get("labelSelector"), wish.labels):
                    closed.add((key, node.labels[key]))
    if not closed:
        return set()
    return {node.name for node in nodes if any(node.labels.get(key) == value for key, value in closed)}


def unschedulable_message(total: int, refusals: Iterable[Refusal], *, before: str = "") -> str:
    """The text of a FailedScheduling event. `before` is a fact found before any node was looked at."""
    if not total:
        return "no nodes available to schedule pods"
    refused = list(refusals)
    counts = Counter(reason for row in refused for reason in row.reasons)
    helpless = sum(not row.preemptible for row in refused)
    if before:
        helpless = total
    verdicts = [(total - helpless, _NO_VICTIMS), (helpless, _NOT_HELPFUL)]
    preemption = ", ".join(sorted(f"{count} {text}" for count, text in verdicts if count))
    parts = [f"0/{total} nodes are available:"]
    if before:
        parts.append(f"{before}.")
    if counts:
        parts.append(", ".join(sorted(f"{count} {reason}" for reason, count in counts.items())) + ".")
    return " ".join([*parts, f"preemption: 0/{total} nodes are available: {preemption}."])


def _host_ports(spec: Mapping[str, Any]) -> frozenset[int]:
    ports: set[int] = set()
    for container in spec.get("containers") or []:
        for port in container.get("ports") or []:
            number = port.get("hostPort") or (port["containerPort"] if spec.get("hostNetwork") else None)
            if number:
                ports.add(int(number))
    return frozenset(ports)
