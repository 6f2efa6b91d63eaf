"""How a new revision takes the place of the old one, so that nobody waits for a GPU for ever."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from budcluster.deployment.fitting.demands import AnyDemand, Demand, ProcessorDemand
from budcluster.deployment.fitting.placing import Stock, refusals
from budcluster.deployment.fitting.rooms import Room, Share
from budcluster.deployment.values import Rollout


@dataclass(frozen=True, slots=True)
class Chances:
    """What there is room for while the old copies stand."""

    beside: int
    """New copies that fit beside all the old ones."""
    in_place: bool
    """Whether a new copy can stand wherever an old one makes room."""


def choose_rollout(*, replicas: int, chances: Chances, exclusive_cache: bool) -> Rollout:
    """The strategy that serves most and cannot wait for ever for a GPU, or for a volume that one node holds."""
    if exclusive_cache:
        return Rollout.RECREATE
    if chances.beside >= max(replicas, 1) or (chances.beside and chances.in_place):
        return Rollout.SURGE
    return Rollout.DRAIN_ONE if replicas > 1 and chances.in_place else Rollout.RECREATE


def chances_of(
    new: Demand, old: AnyDemand | None, *, beside: Sequence[Room], waiting: Iterable[Demand], own: Sequence[Room]
) -> Chances:
    """For a deployment with GPUs. `beside` are the rooms as the old copies leave them, `own` those they stand in."""
    stock = Stock(beside)
    for earlier in waiting:
        stock.place(earlier)
    return Chances(len(stock.place(new)), isinstance(old, Demand) and takes_the_place(new, old, own))


def takes_the_place(new: Demand, old: Demand, own: Sequence[Room]) -> bool:
    """Whether what one old copy frees is enough for a new one, in every room in which an old one stands."""
    size = new.sized()
    return (
        new.shape.devices <= old.shape.devices
        and new.resource == old.resource
        and _is_within(new.share, old.share)
        and not any(room.closed or refusals(new, room, size) for room in own)
    )


def _is_within(new: Share | None, old: Share | None) -> bool:
    if old is None:
        return True
    if new is None:
        return False
    return new.memory_mib <= old.memory_mib and (new.cores_percent or 0) <= (old.cores_percent or 0)


def is_no_larger(new: ProcessorDemand, old: AnyDemand | None) -> bool:
    """The same question without GPUs."""
    if not isinstance(old, ProcessorDemand):
        return False
    return new.cores <= old.cores and new.memory_gib <= old.memory_gib and new.processes <= old.processes
