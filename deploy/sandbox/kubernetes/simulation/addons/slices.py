"""HAMi's arithmetic: what a pod asks of cards, and which cards can give it (HAMi v2.10 pkg/device/nvidia)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]


@dataclass
class Card:
    """One physical card as registered, and what is given away of it."""

    uuid: str
    total_mib: int
    shares: int
    healthy: bool
    cordoned: bool
    used_mib: int = 0
    used_cores: int = 0
    holders: int = 0

    def take(self, mib: int, cores: int) -> None:
        """Give a slice away."""
        self.used_mib += mib
        self.used_cores += cores
        self.holders += 1


@dataclass(frozen=True)
class Slice:
    """A part of a card: MiB and percent of its cores (0: any)."""

    uuid: str
    mib: int
    cores: int


@dataclass(frozen=True)
class Ask:
    """What one container wants: that many distinct cards, each with this much (`mib` 0: `percent` of the card)."""

    cards: int
    mib: int
    percent: int
    cores: int


def cards_of(register: str, cordon: str) -> list[Card]:
    """Read the register annotation (JSON form of 2.8 and later)."""
    barred = set(cordon.split(",")) if cordon else set()
    return [
        Card(row["id"], row.get("devmem", 0), row.get("count", 0), row.get("health", False), row["id"] in barred)
        for row in (json.loads(register) if register else [])
    ]


def wanted_slices(pod: Obj) -> list[Ask]:
    """One entry for each init container and container, init containers first."""
    asks = []
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        limits = (container.get("resources") or {}).get("limits") or {}
        mib, percent = int(limits.get("nvidia.com/gpumem", 0)), int(limits.get("nvidia.com/gpumem-percentage", 0))
        cores = int(limits.get("nvidia.com/gpucores", 0))
        # The webhook adds one card to a container that names only memory or cores.
        cards = int(limits.get("nvidia.com/gpu", 1 if mib or percent or cores else 0))
        asks.append(Ask(cards, mib, percent or (0 if mib else 100), cores))
    return asks


def fit(asks: list[Ask], cards: list[Card]) -> list[list[Slice]] | str:
    """The slices for each container, or how many cards failed for which reason. `cards` are not changed."""
    trial = [Card(**vars(card)) for card in cards]
    chosen: list[list[Slice]] = []
    for ask in asks:
        reasons: Counter[str] = Counter()
        taken: list[Slice] = []
        for card in sorted(trial, key=lambda one: (one.used_mib, one.uuid)):
            if len(taken) == ask.cards:
                break
            mib = ask.mib or card.total_mib * ask.percent // 100
            problem = _problem(card, mib, ask.cores)
            if problem:
                reasons[problem] += 1
                continue
            card.take(mib, ask.cores)
            taken.append(Slice(card.uuid, mib, ask.cores))
        if len(taken) < ask.cards:
            if len(trial) < ask.cards:
                return "NodeInsufficientDevice"
            return ", ".join(f"{count}/{len(trial)} {reason}" for reason, count in sorted(reasons.items()))
        chosen.append(taken)
    return chosen


def _problem(card: Card, mib: int, cores: int) -> str | None:
    checks = (
        (not card.healthy, "CardNotHealth"),
        (card.cordoned, "CardCordoned"),
        (card.holders >= card.shares, "CardTimeSlicingExhausted"),
        (card.total_mib - card.used_mib < mib, "CardInsufficientMemory"),
        (100 - card.used_cores < cores, "CardInsufficientCore"),
        (cores == 100 and card.holders > 0, "ExclusiveDeviceAllocateConflict"),
        (card.used_cores == 100 and cores == 0, "CardComputeUnitsExhausted"),
    )
    return next((reason for holds, reason in checks if holds), None)
