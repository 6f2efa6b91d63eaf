"""Whose pods a rollout is judged by."""

from typing import Any

import pytest

from budcluster.kube.workloads import present_set

REVISION = "deployment.kubernetes.io/revision"


def owner(*, generation: int = 2, observed: int = 2, revision: int = 2, replicas: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"uid": "owner", "generation": generation, "annotations": {REVISION: str(revision)}},
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": observed},
    }


def replica_set(revision: int, *, replicas: int = 1, of: str = "owner") -> dict[str, Any]:
    metadata = {
        "uid": f"set-{revision}",
        "annotations": {REVISION: str(revision)},
        "ownerReferences": [{"uid": of, "controller": True}],
    }
    return {"metadata": metadata, "spec": {"replicas": replicas}}


OLD, NEW = replica_set(1), replica_set(2)


@pytest.mark.parametrize(
    ("workload", "sets", "found"),
    [
        (owner(), [OLD, NEW], NEW),
        (owner(observed=1, revision=1), [OLD], None),
        (owner(revision=1), [replica_set(1, replicas=0)], None),
        (owner(revision=1, replicas=0), [replica_set(1, replicas=0)], replica_set(1, replicas=0)),
        (owner(), [replica_set(2, of="a-deployment-of-this-name-before")], None),
        (owner(), [], None),
    ],
    ids=["newest", "not taken up", "Recreate empties the old one", "parked", "of a namesake", "none"],
)
def test_only_pods_of_the_present_template_count(
    workload: dict[str, Any], sets: list[dict[str, Any]], found: dict[str, Any] | None
) -> None:
    assert present_set(workload, sets) == found
