"""Takes what others have set in a release's Deployment over, so that Helm's next apply drops what the chart lacks.

An apply removes only fields that the same manager set before: a variable that somebody added with kubectl would stay
for ever. So the account of who set what is rewritten first, as kubectl does where it moves objects to such applies.
"""

from collections.abc import Mapping
from typing import Any, Final

from budcluster.deployment.watching.status import foreign_entries
from budcluster.kube.client import ClusterClient
from budcluster.kube.errors import NotFound
from budcluster.kube.resources import DEPLOYMENTS

Json = Mapping[str, Any]

_HELM: Final = "helm"


async def take_over(client: ClusterClient, namespace: str, release: str, *, spares_pods: bool = False) -> None:
    """Make the fields of others Helm's own. What is absent has none. Raises KubeError.

    With `spares_pods` those of the pods stay as they are: dropping one of them would start every copy anew.
    """
    try:
        workload = await client.get(DEPLOYMENTS, release, namespace=namespace)
    except NotFound:
        return
    if (entries := taken_over(workload, spares_pods=spares_pods)) is not None:
        metadata = {"managedFields": entries, "resourceVersion": workload["metadata"]["resourceVersion"]}
        await client.patch(DEPLOYMENTS, release, {"metadata": metadata}, namespace=namespace)


def taken_over(workload: Json, *, spares_pods: bool = False) -> list[Json] | None:
    """The account in which what others have set in the specification is Helm's; None where nothing is to change."""
    foreign = [
        entry
        for entry in foreign_entries(workload)
        if not (spares_pods and "f:template" in entry["fieldsV1"]["f:spec"])
    ]
    entries = workload["metadata"].get("managedFields") or ()
    applied = [one for one in entries if (one.get("manager"), one.get("operation")) == (_HELM, "Apply")]
    if not foreign or not applied:
        return None
    fields: Json = applied[0]["fieldsV1"]
    for entry in foreign:
        fields = _united(fields, entry["fieldsV1"])
    kept = [one for one in entries if one not in foreign and one is not applied[0]]
    return [{**applied[0], "fieldsV1": fields}, *kept]


def _united(some: Json, others: Json) -> dict[str, Any]:
    return {**some, **{key: _united(some.get(key, {}), inner) for key, inner in others.items()}}
