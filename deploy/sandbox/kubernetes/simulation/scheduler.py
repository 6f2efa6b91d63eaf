"""The scheduler: binds pods to nodes, one at a time, and says why when it cannot."""

from __future__ import annotations

from itertools import chain, islice
from typing import Any, Protocol

from sandbox.kubernetes.history import Event
from sandbox.kubernetes.simulation import volumes
from sandbox.kubernetes.simulation.placement import (
    NodeRoom,
    Placed,
    Refusal,
    Wish,
    refusal,
    topology_refusals,
    unschedulable_message,
    wish_of,
)
from sandbox.kubernetes.simulation.quantities import amounts
from sandbox.kubernetes.simulation.selectors import node_term_matches
from sandbox.kubernetes.simulation.view import Key, is_finished, key_of
from sandbox.kubernetes.simulation.world import World

Obj = dict[str, Any]

SOURCE = "default-scheduler"
_ENOUGH = 20
"""Feasible nodes to score before deciding; the real one looks at 5-50 % of a large cluster."""
_RETRY_S = 0.5


class Sharing(Protocol):
    """A second opinion for pods that ask for slices of a device (HAMi's scheduler extender)."""

    ignored: frozenset[str]

    def claims(self, pod: Obj) -> bool:
        """Whether such a pod is its business."""

    def serves(self) -> bool:
        """Whether the scheduler that would answer is up."""

    def choose(self, pod: Obj, nodes: list[NodeRoom]) -> NodeRoom | str:
        """The node to bind to (the pod is then booked there), or the text of the failure."""


class Scheduler:
    """Keeps what each node has left and the pods that wait; retries those when something changed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rooms: dict[str, NodeRoom] = {}
        self._in_order: list[NodeRoom] = []
        self._waiting: dict[Key, str] = {}
        self._verdicts: dict[str, str] = {}
        self._next_start = 0
        self._repelling: set[str] = set()
        self._flush_planned = False
        self.sharing: Sharing | None = None
        self._stop = world.store.subscribe(self._on_event, kinds=("Pod", "Node", "PersistentVolumeClaim"))

    def stop(self) -> None:
        """Listen no longer."""
        self._stop()

    def _on_event(self, event: Event) -> None:
        if event.obj["kind"] == "Pod":
            self._on_pod(event)
        elif event.obj["kind"] == "Node":
            self._on_node(event)
        elif self._waiting:
            self._changed()

    def _on_pod(self, event: Event) -> None:
        pod, uid, key = event.obj, event.obj["metadata"]["uid"], key_of(event.obj)
        node = pod["spec"].get("nodeName")
        if event.type == "DELETED" or is_finished(pod):
            self._waiting.pop(key, None)
            if node in self._rooms:
                self._rooms[node].remove(uid)
                self._repelling.discard(uid)
                self._changed()
        elif node:
            self._waiting.pop(key, None)
            self._book(node, uid, pod)
        elif event.type == "ADDED" or event.old is None or event.old["spec"] != pod["spec"]:
            self._world.driver.soon(("schedule", key), lambda: self._schedule(key))

    def _book(self, node: str, uid: str, pod: Obj) -> None:
        room = self._rooms.get(node)
        if room is not None and uid not in room.pods:
            placed = wish_of(pod).placed
            room.add(uid, placed)
            if placed.anti_affinity:
                self._repelling.add(uid)

    def _on_node(self, event: Event) -> None:
        node, name = event.obj, event.obj["metadata"]["name"]
        if event.type == "DELETED":
            self._rooms.pop(name, None)
            self._in_order = list(self._rooms.values())
            self._changed()
            return
        fresh = _room(node)
        former = self._rooms.get(name)
        if former is not None:
            same = (former.labels, former.taints, former.unschedulable, former.allocatable)
            if same == (fresh.labels, fresh.taints, fresh.unschedulable, fresh.allocatable):
                return
            fresh.used, fresh.pods = former.used, former.pods
        self._rooms[name] = fresh
        self._in_order.clear()
        self._changed()

    def _changed(self) -> None:
        self._verdicts.clear()
        if self._waiting and not self._flush_planned:
            self._flush_planned = True
            self._world.after(_RETRY_S, self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        for key in list(self._waiting):
            self._world.driver.soon(("schedule", key), lambda key=key: self._schedule(key))  # type: ignore[misc] # default binds the loop variable

    def _schedule(self, key: Key) -> None:
        pod = self._world.store.find(*key)
        if pod is None or pod["spec"].get("nodeName") or is_finished(pod) or pod["metadata"].get("deletionTimestamp"):
            self._waiting.pop(key, None)
            return
        if pod["spec"].get("schedulingGates"):
            return
        shared = self.sharing is not None and self.sharing.claims(pod)
        name = "hami-scheduler" if shared else pod["spec"].get("schedulerName") or SOURCE
        if name != SOURCE and not shared:
            # A scheduler that nobody runs: such pods stay Pending without any event.
            self._waiting[key] = ""
            return
        self._place(key, pod, shared=shared)

    def _place(self, key: Key, pod: Obj, *, shared: bool) -> None:
        sharing = self.sharing if shared else None
        wish = wish_of(pod, ignored=sharing.ignored if sharing else frozenset())
        claims = volumes.inspect_claims(self._world.store, pod)
        if claims.problem:
            self._refuse(key, pod, unschedulable_message(len(self._rooms), [], before=claims.problem))
            return
        signature = f"{wish.namespace}{wish.labels}{wish.requests}{wish.spec.get('nodeSelector')}" + (
            f"{wish.spec.get('affinity')}{wish.spec.get('tolerations')}{wish.spec.get('topologySpreadConstraints')}"
        )
        if sharing is None and signature in self._verdicts:
            self._refuse(key, pod, self._verdicts[signature])
            return
        feasible, refusals = self._filter(wish, enough=None if sharing else _ENOUGH)
        if not feasible:
            message = unschedulable_message(len(self._rooms), refusals)
            self._verdicts[signature] = message
            self._refuse(key, pod, message)
            return
        chosen = sharing.choose(pod, feasible) if sharing else min(feasible, key=lambda room: _cost(wish, room))
        if isinstance(chosen, str):
            self._refuse(key, pod, chosen, reason="FilteringFailed")
            return
        if claims.waiting:
            volumes.select_node(self._world, claims.waiting, chosen.name)
            self._waiting[key] = ""
            return
        self._bind(key, pod, chosen, source="hami-scheduler" if sharing else SOURCE)

    def _filter(self, wish: Wish, *, enough: int | None) -> tuple[list[NodeRoom], list[Refusal]]:
        if len(self._in_order) != len(self._rooms):
            self._in_order = list(self._rooms.values())
        rooms = self._in_order
        if wish.pinned is not None and wish.pinned in self._rooms:
            problem = refusal(wish, self._rooms[wish.pinned])
            if problem is None:
                return [self._rooms[wish.pinned]], []
            others = Refusal(("node(s) didn't satisfy plugin(s) [NodeAffinity]",))
            return [], [problem] + [others] * (len(rooms) - 1)
        start = self._next_start % len(rooms) if rooms else 0
        crossed: dict[str, Refusal] | None = None
        feasible: list[NodeRoom] = []
        refusals: list[Refusal] = []
        for room in chain(islice(rooms, start, None), islice(rooms, start)):
            self._next_start += 1
            problem = refusal(wish, room)
            if problem is None and (wish.spread or wish.affinity or wish.anti_affinity or self._repelling):
                crossed = topology_refusals(wish, rooms) if crossed is None else crossed
                problem = crossed.get(room.name)
            if problem is not None:
                refusals.append(problem)
                continue
            feasible.append(room)
            if enough is not None and len(feasible) >= enough:
                break
        return feasible, refusals

    def _refuse(self, key: Key, pod: Obj, message: str, *, reason: str = "FailedScheduling") -> None:
        if self._waiting.get(key) == message:
            return
        self._waiting[key] = message
        source = SOURCE if reason == "FailedScheduling" else "hami-scheduler"
        self._world.events.warning(pod, reason, message, source=source)
        now = self._world.now()

        def mark(current: Obj) -> None:
            status = current.setdefault("status", {})
            status.setdefault("phase", "Pending")
            others = [row for row in status.get("conditions") or [] if row["type"] != "PodScheduled"]
            row = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            status["conditions"] = [*others, {**row, "lastProbeTime": None, "lastTransitionTime": now}]

        self._world.change(pod, mark, subresource="status")

    def _bind(self, key: Key, pod: Obj, room: NodeRoom, *, source: str) -> None:
        self._waiting.pop(key, None)

        def assign(current: Obj) -> None:
            current["spec"]["nodeName"] = room.name

        if self._world.change(pod, assign) is None:
            return
        message = f"Successfully assigned {key[1]}/{key[2]} to {room.name}"
        self._world.events.normal(pod, "Scheduled", message, source=source)


def _room(node: Obj) -> NodeRoom:
    return NodeRoom(
        name=node["metadata"]["name"],
        labels=dict(node["metadata"].get("labels") or {}),
        taints=list(node["spec"].get("taints") or []),
        unschedulable=bool(node["spec"].get("unschedulable")),
        allocatable=amounts((node.get("status") or {}).get("allocatable")),
    )


def _cost(wish: Wish, room: NodeRoom) -> tuple[int, int, float, int]:
    """Lower is better: preferred affinity, soft taints, then the emptiest node."""
    affinity = (wish.spec.get("affinity") or {}).get("nodeAffinity") or {}
    liked = sum(
        int(term["weight"])
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        if node_term_matches(term["preference"], room.name, room.labels)
    )
    disliked = sum(taint["effect"] == "PreferNoSchedule" for taint in room.taints)
    names = [name for name in wish.requests if room.allocatable.get(name)] or ["cpu", "memory"]
    fill = max(room.used.get(name, 0) / max(room.allocatable.get(name, 0), 1) for name in names)
    twins = sum(_same_kind(wish, placed) for placed in room.pods.values())
    return -liked, disliked + twins, fill, len(room.pods)


def _same_kind(wish: Wish, placed: Placed) -> bool:
    return bool(wish.labels) and placed.namespace == wish.namespace and placed.labels == wish.labels
