"""Which refusals count for a rollout, and how often the cluster is asked."""

from datetime import UTC, datetime
from typing import Any

import pytest

from budcluster.deployment.serving import Told
from budcluster.deployment.takeover import taken_over
from budcluster.deployment.values import without_surge
from budcluster.deployment.watching.rollout import happened_since


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        ({"lastTimestamp": "2026-11-24T10:00:00Z"}, True),
        ({"lastTimestamp": "2026-11-24T09:59:59Z"}, False),
        ({"lastTimestamp": None, "series": {"lastObservedTime": "2026-11-24T10:00:01.5Z"}}, True),
        ({"eventTime": "2026-11-24T09:00:00.5Z"}, False),
        ({"metadata": {"creationTimestamp": "2026-11-24T09:00:00Z"}}, False),
        ({"lastTimestamp": "2026-11-24T09:00:00"}, True),
        ({}, True),
    ],
)
def test_a_refusal_from_before_the_attempt_tells_nothing(event: dict[str, Any], counts: bool) -> None:
    began = datetime(2026, 11, 24, 10, 0, 0, 700_000, tzinfo=UTC)
    assert happened_since({"metadata": {}, **event}, began) is counts


@pytest.mark.parametrize(
    ("replicas", "cache", "strategy"),
    [(1, "emptyDir", "Recreate"), (3, "emptyDir", "RollingUpdate"), (3, "pvc", "Recreate")],
)
def test_the_way_back_needs_no_spare_gpu_and_no_second_node(replicas: int, cache: str, strategy: str) -> None:
    surge = {"type": "RollingUpdate", "maxSurge": 1, "maxUnavailable": 0}
    values = {
        "replicas": replicas,
        "strategy": surge,
        "cache": {"mode": cache, "accessMode": "ReadWriteOnce"},
        "model": "m",
    }
    changed = without_surge(values)
    assert (changed["strategy"]["type"], changed["strategy"]["maxSurge"]) == (strategy, 0)
    assert {**changed, "strategy": surge} == values


@pytest.mark.parametrize(
    ("told", "now", "pause_s"),
    [
        (Told(), 100.0, 15.0),
        (Told(finding="image-not-found", since=90.0), 100.0, 10.0),
        (Told(finding="image-not-found", since=50.0), 100.0, 15.0),
        (Told(), 1_996.0, 4.0),
        (Told(), 2_001.0, 0.0),
    ],
)
def test_without_a_change_the_cluster_is_asked_rarely_but_never_too_late(
    told: Told, now: float, pause_s: float
) -> None:
    assert told.pause_s(now, deadline=2_000.0) == pause_s


def test_what_others_set_becomes_helms_so_that_its_next_apply_drops_it() -> None:
    helm = {"manager": "helm", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    status = {"manager": "kube-controller-manager", "subresource": "status", "fieldsV1": {"f:status": {}}}
    env = {"manager": "kubectl-set", "operation": "Update", "fieldsV1": {"f:spec": {"f:template": {"f:env": {}}}}}
    workload = {"metadata": {"managedFields": [helm, env, status]}}
    united = {"f:spec": {"f:replicas": {}, "f:template": {"f:env": {}}}}
    assert taken_over(workload) == [{**helm, "fieldsV1": united}, status]
    assert taken_over(workload, spares_pods=True) is None
    assert taken_over({"metadata": {"managedFields": [helm, status]}}) is None
    assert taken_over({"metadata": {"managedFields": [env]}}) is None
