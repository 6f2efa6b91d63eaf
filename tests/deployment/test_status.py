"""What is true of a deployment, for all that a cluster may show."""

from typing import Any

import pytest

from budcluster.deployment.models import DeploymentStatus as S
from budcluster.deployment.watching.status import Damping, Known, Observed, Seen, observe, settle
from budcluster.kube.diagnosis import Finding
from budcluster.kube.diagnosis.finding import Weight

CRASH = Finding("crash", "It crashed.", "Look.", Weight.SYMPTOM)


def pod(*, ready: bool = True, waiting: str | None = None, going: bool = False) -> dict[str, Any]:
    metadata = {"name": "p", "uid": "u", **({"deletionTimestamp": "2026-11-24T10:00:00Z"} if going else {})}
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    return {
        "metadata": metadata,
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "runtime", "state": state}],
        },
    }


def workload(replicas: int | None = 1, *, manager: str = "helm", conditions: tuple[Any, ...] = ()) -> dict[str, Any]:
    fields = {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:template": {}}}}
    return {
        "metadata": {"name": "r", "managedFields": [fields]},
        "spec": {} if replicas is None else {"replicas": replicas},
        "status": {"conditions": list(conditions)},
    }


LOOPING = pod(ready=False, waiting="CrashLoopBackOff")


@pytest.mark.parametrize(
    ("known", "seen", "status", "ready", "kind", "urgent"),
    [
        (Known(S.RUNNING, 1), Seen(workload(), [pod()]), S.RUNNING, 1, None, False),
        (Known(S.FAILED, 1), Seen(workload(), [pod()]), S.RUNNING, 1, None, False),
        (Known(S.RUNNING, 2), Seen(workload(2), [pod(), LOOPING], [CRASH]), S.RUNNING, 1, "crash", False),
        (Known(S.RUNNING, 1), Seen(workload(), [pod(ready=False)]), S.FAILED, 0, None, False),
        (Known(S.RUNNING, 1), Seen(workload(), [LOOPING], [CRASH]), S.FAILED, 0, "crash", True),
        (Known(S.RUNNING, 1), Seen(workload(), [pod(going=True)]), S.FAILED, 0, None, False),
        (Known(S.RUNNING, 1), Seen(workload(), []), S.FAILED, 0, None, False),
        (Known(S.RUNNING, 1), Seen(workload(0), []), S.FAILED, 0, "edited-outside", True),
        (Known(S.RUNNING, 1), Seen(workload(None), [pod()]), S.RUNNING, 1, None, False),
        (Known(S.RUNNING, 1), Seen(workload(3), [pod()]), S.RUNNING, 1, "edited-outside", False),
        (Known(S.RUNNING, 1), Seen(workload(manager="kubectl-edit"), [pod()]), S.RUNNING, 1, "edited-outside", False),
        (Known(S.PARKED, 0), Seen(workload(0), []), S.PARKED, 0, None, True),
        (Known(S.FAILED, 0), Seen(workload(0), []), S.PARKED, 0, None, True),
        (Known(S.PARKED, 0), Seen(workload(1), [pod()]), S.PARKED, 1, "edited-outside", True),
        (Known(S.RUNNING, 1), Seen(workload(), [pod()], is_reached=False), S.FAILED, 1, "service-missing", False),
        (Known(S.UPDATING, 1, held=True), Seen(workload(), [pod()], is_reached=False), None, 1, None, False),
        (Known(S.PARKED, 0), Seen(workload(0), [], is_reached=False), S.PARKED, 0, "service-missing", True),
        (Known(S.RUNNING, 1), Seen(None), S.FAILED, 0, "release-missing", False),
        (Known(S.PARKED, 0), Seen(None), S.FAILED, 0, "release-missing", False),
        (Known(S.FAILED, 1), Seen(None), S.FAILED, 0, "release-missing", False),
        (Known(S.FAILED, 1, failed_by_operation=True), Seen(None), None, 0, None, False),
        (Known(S.FAILED, 1, half_removed=True), Seen(workload(), [pod()]), None, 1, None, False),
        (Known(S.FAILED, 1, failed_by_operation=True, half_removed=True), Seen(None), None, 0, None, False),
        (Known(S.UPDATING, 1, held=True), Seen(workload(2), [pod()]), None, 1, None, False),
        (Known(S.RUNNING, 1, held=True), Seen(None), None, 0, None, False),
        (Known(S.DEPLOYING, 1, held=True), Seen(workload(), [LOOPING], [CRASH]), None, 0, "crash", False),
        (Known(S.PENDING, 1), Seen(None), None, 0, None, False),
        (Known(S.DELETING, 1), Seen(workload(), [pod()]), None, 1, None, False),
        (Known(S.DELETING, 1, half_removed=True), Seen(workload(), [pod()]), None, 1, None, False),
    ],
)
def test_what_the_cluster_shows_becomes_what_is_true(
    known: Known, seen: Seen, status: S | None, ready: int, kind: str | None, urgent: bool
) -> None:
    observed = observe(known, seen)
    found = observed.finding.type if observed.finding else None
    assert (observed.status, observed.ready, found, observed.urgent) == (status, ready, kind, urgent)
    assert observed.servable is (ready > 0 and seen.is_reached and not known.half_removed)


def test_a_quota_that_forbids_pods_is_found_without_a_pod() -> None:
    said = {"type": "ReplicaFailure", "status": "True", "message": 'pods "r-1" is forbidden: exceeded quota: gpus'}
    observed = observe(Known(S.RUNNING, 1), Seen(workload(conditions=(said,))))
    assert observed.finding is not None
    assert observed.finding.type == "quota"


def test_a_rollout_that_takes_too_long_is_told_where_no_pod_says_why() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    release = workload(conditions=({"type": "Available", "status": "False"}, late))
    kinds = [
        finding.type if (finding := observe(Known(S.RUNNING, 1), Seen(release, [LOOPING], findings)).finding) else None
        for findings in ([], [CRASH])
    ]
    assert kinds == ["progress-deadline", "crash"]


@pytest.mark.parametrize(
    ("present", "shown", "urgent", "lasted_s", "expected"),
    [
        (S.RUNNING, S.FAILED, False, 0.0, (S.RUNNING, 15.0)),
        (S.RUNNING, S.FAILED, False, 14.0, (S.RUNNING, 1.0)),
        (S.RUNNING, S.FAILED, False, 15.0, (S.FAILED, None)),
        (S.RUNNING, S.FAILED, True, 0.0, (S.FAILED, None)),
        (S.FAILED, S.RUNNING, False, 3.0, (S.FAILED, 7.0)),
        (S.FAILED, S.RUNNING, False, 10.0, (S.RUNNING, None)),
        (S.RUNNING, S.RUNNING, False, 0.0, (S.RUNNING, None)),
        (S.UPDATING, None, False, 99.0, (S.UPDATING, None)),
    ],
)
def test_a_change_of_status_must_last(
    present: S, shown: S | None, urgent: bool, lasted_s: float, expected: tuple[S, float | None]
) -> None:
    observed = Observed(0, False, shown, None, urgent)
    assert settle(Known(present, 1), observed, Damping(), lasted_s=lasted_s) == expected
