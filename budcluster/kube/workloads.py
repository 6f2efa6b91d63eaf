"""Which pods a controller has made from its present template: what others show tells nothing of it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Json = Mapping[str, Any]

_REVISION: Final = "deployment.kubernetes.io/revision"
_POD_REVISION: Final = "controller-revision-hash"


def is_observed(workload: Json) -> bool:
    """Whether its controller has taken up the newest spec; a status from before tells of a former one."""
    seen = int((workload.get("status") or {}).get("observedGeneration") or 0)
    return seen >= int(workload["metadata"].get("generation") or 0)


def present_set(deployment: Json, sets: Iterable[Json]) -> Json | None:
    """The ReplicaSet of the Deployment's present template; None until the controller has taken the template up.

    With `Recreate` the controller first counts the generation as seen and empties the old ReplicaSet, which is the
    newest one until then.
    """
    if not is_observed(deployment):
        return None
    copies = int((deployment.get("spec") or {}).get("replicas") or 0)
    for one in sets:
        is_empty = copies and not int((one.get("spec") or {}).get("replicas") or 0)
        if controller_of(one) == uid_of(deployment) and _revision(one) == _revision(deployment) and not is_empty:
            return one
    return None


def present_pods(workloads: Iterable[Json], sets: Sequence[Json], pods: Iterable[Json]) -> list[Json]:
    """The pods of the present templates of Deployments, StatefulSets and DaemonSets.

    A DaemonSet names no present template; its controller deletes old pods that are not available before it counts the
    generation as seen. What is being deleted does not count either way.
    """
    revisions: dict[str, str | None] = {}
    for workload in filter(is_observed, workloads):
        maker = present_set(workload, sets) or workload
        revisions[uid_of(maker)] = (workload.get("status") or {}).get("updateRevision")
    return [
        pod
        for pod in pods
        if (maker_uid := controller_of(pod)) in revisions
        and revisions[maker_uid] in {None, (pod["metadata"].get("labels") or {}).get(_POD_REVISION)}
        and not pod["metadata"].get("deletionTimestamp")
    ]


def uid_of(item: Json) -> str:
    """What makes an object itself, and not another of the same name."""
    return str(item["metadata"].get("uid", ""))


def controller_of(item: Json) -> str | None:
    """The uid of the object that made this one."""
    owners = item["metadata"].get("ownerReferences") or ()
    return next((str(owner.get("uid")) for owner in owners if owner.get("controller")), None)


def _revision(item: Json) -> str:
    return str((item["metadata"].get("annotations") or {}).get(_REVISION, ""))
