"""Does it fit? Asked before anything is created, and answered with "yes, here", or "no, because", or "nobody knows".

Requests that were accepted but are not scheduled yet take their place first, so one GPU is never promised twice. The
caller holds a lock per cluster while it asks and writes the row.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from budcluster.deployment.fitting.demands import Demand, together
from budcluster.deployment.fitting.placing import Stock, refusals, short_of_host, unknowns
from budcluster.deployment.fitting.rooms import Room
from budcluster.deployment.fitting.sizing import Estimate, divides, misshapen

_WIDEST: Final = 64
_SAID: Final = 10
"""Doubts about nodes that are told, of hundreds that may be alike."""
_FEW_SEQUENCES: Final = 256
"""What engines take by themselves on devices that are not large."""


class Verdict(StrEnum):
    """The three honest answers."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PoolReason:
    """Why the nodes of one pool do not take the deployment."""

    pool: str
    nodes: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """The answer."""

    verdict: Verdict
    nodes: tuple[str, ...]
    """Where the replicas would stand; fewer than asked when the answer is no."""
    reasons: tuple[PoolReason, ...]
    nearest: tuple[str, ...]
    """Changes that would fit, as sentences."""
    needed_mib: int | None
    """Memory per device; None when the model is not known."""
    warnings: tuple[str, ...] = ()
    resource: str | None = None
    """The name by which devices are asked for there; None without GPUs."""


def check_fit(demand: Demand, rooms: Sequence[Room], *, waiting: Iterable[Demand] = ()) -> Fit:
    """Look for places for all replicas, after those that are `waiting` have taken theirs."""
    stock = Stock(rooms)
    for earlier in together(waiting):
        stock.place(earlier)
    size = demand.sized()
    faults = misshapen(demand.facts, demand.shape) if demand.facts else ()
    if faults:
        every = (PoolReason("every node", len({room.node for room in rooms}), faults),)
        nearest = _nearest(demand, stock, size)
        return Fit(Verdict.NO, (), every, nearest, size.needed_mib() if size else None, demand.doubts)
    resource = demand.resource or stock.best_resource(demand)
    nodes = stock.copy().place(replace(demand, resource=resource)) if resource else []
    complete = len(nodes) == demand.replicas
    doubts = (*demand.doubts, *_unknowns(demand, rooms, resource, frozenset(nodes)))
    known = Verdict.YES if size and not doubts else Verdict.UNKNOWN
    return Fit(
        verdict=known if complete else Verdict.NO,
        nodes=tuple(nodes),
        reasons=() if complete else _reasons(demand, _after(demand, stock), size),
        nearest=() if complete else _nearest(demand, stock, size),
        needed_mib=size.needed_mib() if size else None,
        warnings=doubts,
        resource=resource,
    )


def _unknowns(demand: Demand, rooms: Sequence[Room], resource: str | None, nodes: frozenset[str]) -> tuple[str, ...]:
    there = (room for room in rooms if room.node in nodes and room.resource == resource)
    return tuple(itertools.islice((unknown for room in there for unknown in unknowns(demand, room)), _SAID))


def _after(demand: Demand, stock: Stock) -> Stock:
    """What is left when as many replicas as can have moved in."""
    left = stock.copy()
    left.place(demand)
    return left


def _reasons(demand: Demand, stock: Stock, size: Estimate | None) -> tuple[PoolReason, ...]:
    pools: dict[str, list[tuple[Room, list[str]]]] = defaultdict(list)
    for kind, nodes in stock.kinds():
        pools[kind.pool].append((kind, nodes))
    return tuple(
        PoolReason(pool, len({node for _, nodes in kinds for node in nodes}), _pool_reasons(demand, kinds, size))
        for pool, kinds in sorted(pools.items())
    )


def _pool_reasons(demand: Demand, kinds: list[tuple[Room, list[str]]], size: Estimate | None) -> tuple[str, ...]:
    found: dict[str, None] = {}
    most_free: int | None = None
    for room, nodes in kinds:
        if refused := refusals(demand, room, size):
            found |= dict.fromkeys(refused)
        elif room.closed:
            found |= dict.fromkeys(f"node {node} {reason}" for node in nodes[:10] for reason in room.closed)
        elif room.whole_devices >= demand.shape.devices and (short := short_of_host(demand, room)):
            found[short] = None
        else:
            most_free = max(most_free or 0, room.whole_devices)
    if most_free is not None and demand.share:
        cores = f" and {demand.share.cores_percent} % of its cores" if demand.share.cores_percent else ""
        found[f"no device has {demand.share.memory_mib} MiB{cores} free"] = None
    elif most_free is not None:
        found[
            f"a replica needs {demand.shape.devices} free GPUs on one node, and the most that a node has left is "
            f"{most_free}"
        ] = None
    return tuple(found)


def _nearest(demand: Demand, stock: Stock, size: Estimate | None) -> tuple[str, ...]:
    """The smallest changes that would fit now, at most one of each kind."""
    sentences = []
    if demand.gpu_model and _fits(replace(demand, gpu_model=None), stock):
        sentences.append("without asking for a GPU model it fits")
    if (tensor_parallel := _nearest_width(demand, stock)) is not None:
        sentences.append(f"with tensor_parallel_size {tensor_parallel} it fits")
    if (depth := _nearest_depth(demand, stock)) is not None:
        sentences.append(f"with pipeline_parallel_size {depth} it fits")
    if size is not None and (context := _largest_context(demand, stock, size)):
        sentences.append(f"with max_model_len {context} it fits")
    if (demand.shape.sequences or 0) > _FEW_SEQUENCES:
        fewer = replace(demand, shape=replace(demand.shape, sequences=_FEW_SEQUENCES))
        sentences += [f"with max_num_seqs {_FEW_SEQUENCES} it fits"] if _fits(fewer, stock) else []
    copies = 0 if _is_misshapen(demand) else len(stock.copy().place(demand))
    if 0 < copies < demand.replicas:
        sentences.append(f"with {copies} replicas it fits")
    return tuple(sentences)


def _nearest_width(demand: Demand, stock: Stock) -> int | None:
    """The next wider split that fits; where the present one cannot be, the next narrower one also."""
    if demand.facts is None or demand.share:
        return None
    present = demand.shape.tensor_parallel
    wider = [width for width in range(present + 1, _WIDEST + 1) if width % 2 == 0]
    narrower = list(range(present - 1, 0, -1)) if not divides(demand.facts, present) else []
    widths = sorted(narrower + wider, key=lambda width: (abs(width - present), width))
    for width in widths:
        asked = replace(demand, shape=replace(demand.shape, tensor_parallel=width))
        if divides(demand.facts, width) and _fits(asked, stock):
            return width
    return None


def _nearest_depth(demand: Demand, stock: Stock) -> int | None:
    """The most stages that the layers can be cut into and that fit; only where there are more stages than layers."""
    if demand.facts is None or demand.shape.pipeline_parallel <= demand.facts.layers:
        return None
    depths = range(demand.facts.layers, 0, -1)
    asked = (replace(demand, shape=replace(demand.shape, pipeline_parallel=depth)) for depth in depths)
    return next((one.shape.pipeline_parallel for one in asked if _fits(one, stock)), None)


def _largest_context(demand: Demand, stock: Stock, size: Estimate) -> int | None:
    memories = {
        demand.share.memory_mib if demand.share else room.memory_mib or 0
        for room, _ in stock.kinds()
        if not room.closed
    }
    for memory in sorted(memories, reverse=True):
        context = size.largest_context(memory) // 256 * 256
        shorter = replace(demand, shape=replace(demand.shape, max_model_len=context))
        if 0 < context < demand.shape.max_model_len and _fits(shorter, stock):
            return context
    return None


def _is_misshapen(demand: Demand) -> bool:
    return demand.facts is not None and bool(misshapen(demand.facts, demand.shape))


def _fits(demand: Demand, stock: Stock) -> bool:
    return not _is_misshapen(demand) and len(stock.copy().place(demand)) == demand.replicas
