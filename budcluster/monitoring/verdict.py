"""From what was seen of a cluster to its health. Pure.

One bad look proves nothing: a change is shown once two looks in a row agree on it, in both directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from budcluster.cluster.models import ClusterHealth

AGREEING: Final = 2
"""Looks in a row that must agree before a change is shown."""
_WARN_AHEAD: Final = timedelta(days=30)
_OLD: Final = timedelta(minutes=2)
_NAMED: Final = 5
_WHERE_AWAY: Final = (
    "A cluster that is only away comes back by itself. Where its address or certificate has changed, onboard it again "
    "with its present kubeconfig; where it is gone or was built anew, delete it here."
)
_WHERE_REFUSED: Final = "With an administrator's kubeconfig, onboard it again; or delete it here."


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a cluster is not simply well."""

    code: str
    """Stable, for programs: `nodes-not-ready`."""
    detail: str
    warning: bool = False
    """Nothing is wrong yet; it will be."""
    next_step: str = ""
    """What a person can do, where that does not go without saying."""

    def as_json(self) -> dict[str, str]:
        """As it is stored and shown."""
        facts = {"code": self.code, "detail": self.detail, "severity": "warning" if self.warning else "problem"}
        return {**facts, "next_step": self.next_step} if self.next_step else facts


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look at a cluster found."""

    unreachable: str | None = None
    """Why its API server cannot be used, in a sentence."""
    refused: str | None = None
    """Why its API server, which answers, does not take our credential, in a sentence."""
    kubernetes_version: str | None = None
    """As the server calls it now; None where it does not say."""
    credential_expires_at: datetime | None = None
    certificate_expires_at: datetime | None = None
    """Of the server itself."""
    inventory_as_of: datetime | None = None
    nodes: int = 0
    not_ready: Sequence[str] = ()
    pressed: Sequence[str] = ()
    gpus: int = 0
    gpus_unhealthy: int = 0
    nodes_with_fewer_gpus: Sequence[str] = ()
    """That had more when the hardware was detected."""
    failing_addons: Sequence[str] = ()
    """Name and what is wrong, for each."""


def verdict(sight: Sight, *, now: datetime) -> tuple[ClusterHealth, tuple[Reason, ...]]:
    """The health that this look alone shows, and why."""
    if sight.unreachable is not None:
        return ClusterHealth.UNREACHABLE, (Reason("unreachable", sight.unreachable, next_step=_WHERE_AWAY),)
    if sight.refused is not None:
        return ClusterHealth.UNREACHABLE, (Reason("credential-refused", sight.refused, next_step=_WHERE_REFUSED),)
    reasons = (*_expiring(sight, now), *_nodes(sight, now), *_gpus(sight), *_addons(sight))
    degraded = any(not reason.warning for reason in reasons)
    return ClusterHealth.DEGRADED if degraded else ClusterHealth.HEALTHY, reasons


def damped(shown: ClusterHealth, seen: ClusterHealth, *, times: int) -> ClusterHealth:
    """What to show after `seen` was found `times` times in a row while `shown` stood."""
    first_good_news = shown is ClusterHealth.UNKNOWN and seen is ClusterHealth.HEALTHY
    return seen if times >= AGREEING or first_good_news else shown


def _expiring(sight: Sight, now: datetime) -> tuple[Reason, ...]:
    ends = (
        ("credential-expires", sight.credential_expires_at, "The stored credential ends at {}; onboard again."),
        (
            "certificate-expires",
            sight.certificate_expires_at,
            "The API server's certificate ends at {}; nobody reaches the cluster then unless it is renewed before.",
        ),
    )
    return tuple(
        Reason(code, sentence.format(f"{end:%Y-%m-%d %H:%M} UTC"), warning=True)
        for code, end, sentence in ends
        if end is not None and end - now <= _WARN_AHEAD
    )


def _nodes(sight: Sight, now: datetime) -> tuple[Reason, ...]:
    if sight.inventory_as_of is None or now - sight.inventory_as_of > _OLD:
        return (Reason("inventory-old", "The nodes could not be read lately; what is known of them may be old."),)
    reasons = []
    if sight.not_ready:
        detail = f"{len(sight.not_ready)} of {sight.nodes} nodes are not ready: {_some(sight.not_ready)}."
        reasons.append(Reason("nodes-not-ready", detail))
    if sight.pressed:
        detail = f"Nodes are short of memory, disk, process ids or network: {_some(sight.pressed)}."
        reasons.append(Reason("nodes-under-pressure", detail))
    if not sight.nodes:
        reasons.append(Reason("no-nodes", "The cluster has no nodes."))
    return tuple(reasons)


def _gpus(sight: Sight) -> tuple[Reason, ...]:
    reasons = []
    if sight.gpus_unhealthy:
        detail = f"{sight.gpus_unhealthy} of {sight.gpus} GPUs are unhealthy or not offered to pods."
        reasons.append(Reason("gpus-unhealthy", detail))
    if sight.nodes_with_fewer_gpus:
        detail = f"Nodes have fewer GPUs than were detected: {_some(sight.nodes_with_fewer_gpus)}."
        reasons.append(Reason("gpus-lost", detail))
    return tuple(reasons)


def _addons(sight: Sight) -> tuple[Reason, ...]:
    return tuple(Reason("add-on-failing", f"Add-on {addon}.") for addon in sight.failing_addons)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(sorted(names)[:_NAMED]) + more
