"""What of a deployment is still in its cluster: found by the label that everything of it bears."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from budcluster.deployment.planning import pull_secret_name, secret_name
from budcluster.deployment.records import DeploymentFacts
from budcluster.kube.door import Door
from budcluster.kube.errors import NotFound
from budcluster.kube.ownership import LABEL_DEPLOYMENT
from budcluster.kube.resources import CLAIMS, DEPLOYMENTS, PODS, REPLICA_SETS, SECRETS, SERVICES, Resource

PODS_AND_OWNERS: Final = (DEPLOYMENTS, REPLICA_SETS, PODS)
KINDS: Final = (
    *PODS_AND_OWNERS, SERVICES, SECRETS, CLAIMS, Resource("", "v1", "configmaps"),
    Resource("policy", "v1", "poddisruptionbudgets"), Resource("networking.k8s.io", "v1", "ingresses"),
    Resource("networking.k8s.io", "v1", "networkpolicies"), Resource("monitoring.coreos.com", "v1", "podmonitors"),
)  # fmt: skip
_LOOK_EVERY_S: Final = 1.0


async def left_after(door: Door, facts: DeploymentFacts, kinds: Sequence[Resource], *, patience_s: float) -> list[str]:
    """Wait until nothing of these kinds is left; what still is when patience ends. Raises KubeError."""
    deadline = asyncio.get_running_loop().time() + patience_s
    while left := await labelled(door, facts, kinds):
        if asyncio.get_running_loop().time() >= deadline:
            break
        await asyncio.sleep(_LOOK_EVERY_S)
    return [f"{kind}/{name}" for kind, name in left]


async def labelled(door: Door, facts: DeploymentFacts, kinds: Sequence[Resource]) -> list[tuple[Resource, str]]:
    """Kind and name of all that bears the deployment's label. Raises KubeError."""
    found = []
    for kind in kinds:
        try:
            pages = door.client.list_pages(
                kind, namespace=facts.namespace, label_selector=f"{LABEL_DEPLOYMENT}={facts.id}"
            )
            found += [(kind, item["metadata"]["name"]) async for page in pages for item in page.get("items") or ()]
        except NotFound:
            continue  # the cluster does not know the kind
    return found


async def remove_secrets(door: Door, facts: DeploymentFacts, *, used: Collection[str] = ()) -> None:
    """Delete the release's Secrets but the used ones, if they bear its label. What is absent is success.

    Raises KubeError.
    """
    for name in sorted({secret_name(facts.release), pull_secret_name(facts.release)} - set(used)):
        try:
            found = await door.client.get(SECRETS, name, namespace=facts.namespace)
        except NotFound:
            continue
        if (found["metadata"].get("labels") or {}).get(LABEL_DEPLOYMENT) == str(facts.id):
            await door.client.delete(SECRETS, name, namespace=facts.namespace)
