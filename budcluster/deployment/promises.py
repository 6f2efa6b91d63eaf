"""What deployments were promised beyond what they hold, whichever way their running changes end."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from budcluster.deployment.fitting.demands import AnyDemand, Demand, ProcessorDemand
from budcluster.deployment.fitting.placing import Stock, refusals
from budcluster.deployment.fitting.rooms import Room
from budcluster.deployment.inventory_memory import Holder, PodKey

_MEMORY: Final = "nvidia.com/gpumem"


@dataclass(frozen=True, slots=True)
class End:
    """A way in which a deployment may stand once nothing is at work on it."""

    demand: AnyDemand
    """Of one copy."""
    replicas: int
    surplus: int = 0
    """Copies of those that make room which stay until all of these stand."""
    is_other: bool = False
    """Whether its pods are made otherwise than those that stand: one of these stays only where a new one might be."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is missing for an end: copies that are to come, and the pods that make room for them."""

    coming: Demand
    leaving: frozenset[PodKey]


class Floor(Protocol):
    """Where all of this takes place."""

    def rooms(self, *, without: frozenset[PodKey] = frozenset()) -> list[Room]:
        """The rooms, as if these pods were gone. A room that none of them is in is the same object each time."""


@dataclass
class Promised:
    """What others are still to get."""

    waiting: list[Demand] = field(default_factory=list)
    """Copies that come, and nothing goes for them."""
    without_gpus: dict[str, ProcessorDemand] = field(default_factory=dict)
    """All copies, whether they stand or not, by deployment."""
    changing: list[Sequence[Step]] = field(default_factory=list)
    """One of the steps will be taken; nobody knows which."""

    def add(self, deployment: str, ends: Sequence[End], standing: Sequence[Holder], rooms: Sequence[Room]) -> None:
        """Promise a deployment that it can stand in each of these ends; `rooms` are those of the whole cluster."""
        plain = [replace(end.demand, replicas=end.replicas) for end in ends if isinstance(end.demand, ProcessorDemand)]
        if plain:
            self.without_gpus[deployment] = _largest(plain)
        steps = list(dict.fromkeys(step for end in ends if (step := _step(end, standing, rooms))))
        if len(steps) == 1 and not steps[0].leaving:
            self.waiting.append(steps[0].coming)
        elif steps:
            self.changing.append(steps)

    def rooms(self, floor: Floor, *, without: frozenset[PodKey] = frozenset()) -> list[Room]:
        """What is free whichever steps are taken, each deployment's in the room that the others' leave."""
        now = floor.rooms(without=without)
        if not self.changing:
            return now
        left = Stock(now)
        for steps in self.changing:
            ways = [left.copy() for _ in steps]
            for way, step in zip(ways, steps, strict=True):
                way.regain(now, floor.rooms(without=without | step.leaving))
                way.place(step.coming)
            for way in ways:
                left.narrow(way)
        return left.rooms()


def _step(end: End, standing: Sequence[Holder], rooms: Sequence[Room]) -> Step | None:
    demand = end.demand
    if not isinstance(demand, Demand):
        return None
    leaving = [
        copy
        for copy in standing
        if not _holds_enough(demand, copy) or (end.is_other and not _may_be_there(demand, copy, rooms))
    ]
    staying = min(end.surplus, len(leaving))
    # Where no copy tells by itself that it is an old one, the surplus is beside them all.
    missing = end.replicas + end.surplus - staying - len(standing) + len(leaving)
    if missing <= 0:
        return None
    return Step(replace(demand, replicas=missing), frozenset(copy.key for copy in leaving[staying:]))


def _holds_enough(demand: Demand, copy: Holder) -> bool:
    share = demand.share
    holds = copy.request.devices(demand.resource) if demand.resource else demand.shape.devices
    return holds >= demand.shape.devices and (not share or copy.request.resources.get(_MEMORY, 0) >= share.memory_mib)


def _may_be_there(demand: Demand, copy: Holder, rooms: Sequence[Room]) -> bool:
    size = demand.sized()
    return any(room.node == copy.node and not refusals(demand, room, size) for room in rooms)


def _largest(demands: Iterable[ProcessorDemand]) -> ProcessorDemand:
    """One that asks for no less than any of them."""
    first, *others = demands
    for other in others:
        first = replace(
            first,
            cores=max(first.cores, other.cores),
            memory_gib=max(first.memory_gib, other.memory_gib),
            replicas=max(first.replicas, other.replicas),
        )
    return first
