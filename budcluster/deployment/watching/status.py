"""From what a cluster shows of a deployment to what is true of it. Pure.

While an operation holds a deployment, the operation decides the status; copies, servable and diagnosis are told as they
are. Otherwise: no ready copy is never RUNNING, nor is one that no Service leads to; zero wanted copies are PARKED, and
whatever is ready again is RUNNING, but for what a deletion has left.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from budcluster.deployment.models import DeploymentStatus as S
from budcluster.kube.diagnosis import Finding, PodEvidence, diagnose
from budcluster.kube.diagnosis.finding import Weight

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Damping:
    """How long something must last before the status follows, in seconds."""

    fail_after_s: float = 15.0
    """No copy is ready: a pod that is replaced meanwhile makes no noise."""
    heal_after_s: float = 10.0
    """A copy is ready: in a crash loop it is for moments."""


_OURS: Final = ("helm", "budcluster", "kube-controller-manager")
"""Field managers that may change a release. pyhelm3 and Helm 4 write as `helm`."""
_SETTLED: Final = frozenset({S.RUNNING, S.PARKED, S.FAILED})
_STARTING: Final = frozenset({"still-starting"})


@dataclass(frozen=True, slots=True)
class Known:
    """What the row says."""

    status: S
    replicas_desired: int
    held: bool = False
    """Whether an operation holds the deployment."""
    failed_by_operation: bool = False
    """Whether its error is an operation's: then its release may be absent for good reason."""
    half_removed: bool = False
    """Whether a deletion has begun to remove it and nothing brings it back: ready copies may be out of reach."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the cluster shows."""

    workload: Json | None
    """The Deployment object of the release; None: absent."""
    pods: Sequence[Json] = ()
    findings: Sequence[Finding] = ()
    """Of its pods."""
    is_reached: bool = True
    """Whether its Service is there, which leads requests to its pods."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is true now."""

    ready: int
    servable: bool
    status: S | None
    """What the cluster makes of it; None: not for the cluster to say."""
    finding: Finding | None
    urgent: bool = False
    """Whether the status is certain, so that nothing is gained by waiting."""


def observe(known: Known, seen: Seen) -> Observed:
    """The state that fits."""
    alive = [pod for pod in seen.pods if not pod["metadata"].get("deletionTimestamp")]
    ready = sum(is_ready(pod) for pod in alive)
    finding = _finding(known, seen)
    servable = ready > 0 and seen.is_reached
    if known.half_removed:
        return Observed(ready, False, None, finding)
    if known.held or known.status not in _SETTLED:
        return Observed(ready, servable, None, finding)
    if seen.workload is None:
        gone_for_good_reason = known.status is S.FAILED and known.failed_by_operation
        return Observed(ready, servable, None if gone_for_good_reason else S.FAILED, finding)
    if known.replicas_desired == 0:
        status = S.PARKED if _wanted(seen.workload) == 0 else known.status
        return Observed(ready, servable, status, finding, urgent=True)
    if ready:
        return Observed(ready, servable, S.RUNNING if servable else S.FAILED, finding)
    urgent = _wanted(seen.workload) == 0 or any(is_crash_looping(pod) for pod in alive)
    return Observed(0, False, S.FAILED, finding, urgent=urgent)


def settle(known: Known, observed: Observed, damping: Damping, *, lasted_s: float) -> tuple[S, float | None]:
    """The status to write, and the seconds after which to look again when a change is not yet certain.

    `lasted_s` is for how long the cluster has shown `observed.status` without a break.
    """
    if observed.status is None or observed.status is known.status:
        return known.status, None
    wait = damping.heal_after_s if observed.status is S.RUNNING else damping.fail_after_s
    if observed.urgent or lasted_s >= wait:
        return observed.status, None
    return known.status, wait - lasted_s


def is_ready(pod: Json) -> bool:
    """Whether the pod answers."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def is_crash_looping(pod: Json) -> bool:
    """Whether a container of the pod has ended so often that the kubelet waits."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    waiting = [((one.get("state") or {}).get("waiting") or {}).get("reason") for one in statuses]
    return "CrashLoopBackOff" in waiting


def _finding(known: Known, seen: Seen) -> Finding | None:
    settled = known.status in _SETTLED and not known.held
    if seen.workload is None:
        return _missing(known) if settled else None
    causes = [one for one in (*seen.findings, *_said_by(seen.workload)) if one.type not in _STARTING]
    if settled and (edited := _edited(known, seen.workload)):
        causes.append(edited)
    if settled and not seen.is_reached:
        causes.append(_UNREACHED)
    return max(causes, key=lambda one: one.weight, default=None)


def _missing(known: Known) -> Finding | None:
    if known.status is S.FAILED and known.failed_by_operation:
        return None
    return Finding(
        "release-missing",
        "The release is no longer in the cluster: somebody deleted it, not this service.",
        'Bring it back with PATCH /deployments/{id} and {"config": {}}, or delete the deployment.',
        Weight.CAUSE,
    )


_UNREACHED: Final = Finding(
    "service-missing",
    "The Service that leads requests to the copies is no longer in the cluster: somebody deleted it, not this service.",
    'Bring it back with PATCH /deployments/{id} and {"config": {}}.',
    Weight.LIKELY,
)


def _said_by(workload: Json) -> Iterator[Finding]:
    """The cluster's own word that it cannot make pods, such as for a quota, or that they take too long."""
    for condition in (workload.get("status") or {}).get("conditions") or ():
        message = str(condition.get("message", ""))
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            event = {"reason": "FailedCreate", "message": message}
            if found := diagnose(PodEvidence({"spec": {"nodeName": "-"}}, [event])):
                yield found
        if condition.get("reason") == "ProgressDeadlineExceeded" and condition.get("status") == "False":
            yield Finding(
                "progress-deadline", "The copies did not become ready within the release's progress deadline.",
                "Look at its logs; if it still loads, give it a longer startup_timeout_s.", Weight.SYMPTOM,
                lines=(message,),
            )  # fmt: skip


def _edited(known: Known, workload: Json) -> Finding | None:
    what = []
    if _wanted(workload) != known.replicas_desired:
        what.append(f"it asks for {_wanted(workload)} copies instead of {known.replicas_desired}")
    if entries := foreign_entries(workload):
        what.append(f"{str(entries[0].get('manager') or 'somebody')[:64]} changed its specification")
    if not what:
        return None
    return Finding(
        "edited-outside",
        f"The release was changed in the cluster, not by this service: {' and '.join(what)}.",
        'Put it right with PATCH /deployments/{id} and {"config": {}}; make changes there, too.',
        Weight.LIKELY,
    )


def foreign_entries(workload: Json) -> list[Json]:
    """What others have set in the specification, as the API server keeps account of it."""
    return [
        entry
        for entry in workload["metadata"].get("managedFields") or ()
        if not str(entry.get("manager") or "").lower().startswith(_OURS)
        and entry.get("subresource") != "status"
        and "f:spec" in (entry.get("fieldsV1") or {})
    ]


def _wanted(workload: Json) -> int:
    replicas = (workload.get("spec") or {}).get("replicas")
    return 1 if replicas is None else int(replicas)
