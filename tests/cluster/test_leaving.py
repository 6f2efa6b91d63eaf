"""What deletion takes away, when it keeps its hands off, and what it says may be left."""

from contextlib import ExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest

from budcluster.kube.errors import NotFound
from budcluster.kube.ownership import ACCOUNT, NARROW, SYSTEM_NAMESPACE, token_secret
from budcluster.kube.playbooks import PlaybookError
from budcluster.kube.resources import CLAIMS as VOLUME_CLAIMS
from budcluster.kube.resources import NAMESPACES, SECRETS, Resource
from budcluster.operations.models import StepStatus
from budcluster.provisioning.adoption import CLAIMS
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.cluster.conftest import BINDINGS, CALL, ByHand, bind, named


async def onboarded(by_hand: ByHand, server: KubernetesServer) -> UUID:
    """A cluster with our account in it."""
    cluster_id = await by_hand.registered()
    payload = await by_hand.asked(cluster_id, server.kubeconfig())
    steps = by_hand.onboarding()
    await steps.check_access(payload, CALL)
    await steps.prepare_cluster(payload, CALL)
    return cluster_id


async def left(by_hand: ByHand, cluster_id: UUID, *, allow_local: bool = True) -> list[str]:
    """What a deletion says may be left."""
    payload = await by_hand.asked_to_delete(cluster_id)
    steps = by_hand.deletion(allow_local=allow_local)
    await steps.remove_addons(payload, CALL)
    await steps.leave_cluster(payload, CALL)
    step = await by_hand.step(payload, "leave_cluster")
    assert step.status is StepStatus.SUCCEEDED
    return list((step.result or {})["left"])


async def is_there(
    by_hand: ByHand, server: KubernetesServer, resource: Resource, name: str, *, namespace: str | None = None
) -> bool:
    async with by_hand.administrator(server) as client:
        try:
            await client.get(resource, name, namespace=namespace)
        except NotFound:
            return False
        return True


async def test_all_that_was_granted_is_taken_back_whatever_was_chosen_last(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarded(by_hand, bare_cluster)
    async with by_hand.administrator(bare_cluster) as client:
        await bind(client, NARROW, to="view")
    await by_hand.set(cluster_id, settings={"manage_addons": False})
    assert await left(by_hand, cluster_id) == []
    for resource, name in ((BINDINGS, ACCOUNT), (BINDINGS, NARROW), (NAMESPACES, SYSTEM_NAMESPACE)):
        assert not await is_there(by_hand, bare_cluster, resource, name), name


async def test_what_bears_our_name_but_not_our_mark_is_left_alone(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarded(by_hand, bare_cluster)
    async with by_hand.administrator(bare_cluster) as client:
        unmarked: dict[str, Any] = {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}
        await client.patch(NAMESPACES, SYSTEM_NAMESPACE, unmarked)
    [told] = await left(by_hand, cluster_id)
    assert "does not bear the label" in told
    assert await is_there(by_hand, bare_cluster, NAMESPACES, SYSTEM_NAMESPACE)


async def test_an_account_whose_credential_was_never_kept_is_removed_with_the_uploaded_one(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    cluster_id = await by_hand.registered()
    payload = await by_hand.asked(cluster_id, bare_cluster.kubeconfig())
    steps = by_hand.onboarding()
    await steps.check_access(payload, CALL)
    by_hand.playbooks.fails_with = PlaybookError("stopped")
    with pytest.raises(PlaybookError):
        await steps.prepare_cluster(payload, CALL)
    assert await is_there(by_hand, bare_cluster, BINDINGS, ACCOUNT)
    assert await left(by_hand, cluster_id) == []
    assert not await is_there(by_hand, bare_cluster, BINDINGS, ACCOUNT)


async def test_where_no_credential_is_kept_at_all_it_is_said_what_may_be_left(by_hand: ByHand) -> None:
    cluster_id = await by_hand.registered()
    await by_hand.set(cluster_id, system_uid="reached-once")
    (said,) = await left(by_hand, cluster_id)
    assert SYSTEM_NAMESPACE in said


async def test_a_cluster_that_was_never_reached_leaves_nothing_to_tell(by_hand: ByHand) -> None:
    assert await left(by_hand, await by_hand.registered()) == []


@pytest.mark.parametrize(
    ("what", "says"),
    [("claim", "not by us any more"), ("token", "does not accept the credential"), ("cluster", "another cluster")],
)
async def test_a_cluster_that_is_not_ours_any_more_is_not_touched(
    by_hand: ByHand, bare_cluster: KubernetesServer, what: str, says: str
) -> None:
    cluster_id = await onboarded(by_hand, bare_cluster)
    async with by_hand.administrator(bare_cluster) as client:
        match what:
            case "claim":
                await client.patch(CLAIMS, "this-cluster", {"spec": {"cluster": str(uuid4())}})
            case "token":
                await client.delete(SECRETS, token_secret(cluster_id), namespace=SYSTEM_NAMESPACE)
            case _:
                await by_hand.set(cluster_id, system_uid="another-one")
    (said,) = await left(by_hand, cluster_id)
    assert says in said
    assert await is_there(by_hand, bare_cluster, BINDINGS, ACCOUNT)


MODELS = "budcluster-models"


async def receipt(by_hand: ByHand, cluster_id: UUID) -> dict[str, list[str]]:
    """What a deletion tells of what it found in the cluster."""
    payload = await by_hand.asked_to_delete(cluster_id)
    await by_hand.deletion().remove_addons(payload, CALL)
    return dict((await by_hand.step(payload, "remove_addons")).result or {})


async def test_the_namespace_of_models_is_removed_where_it_is_empty(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    cluster_id = await onboarded(by_hand, bare_cluster)
    async with by_hand.administrator(bare_cluster) as client:
        await client.apply(NAMESPACES, named("v1", "Namespace", MODELS))
    assert await receipt(by_hand, cluster_id) == {"removed": [f"namespace {MODELS}"], "left": [], "kept": []}
    assert not await is_there(by_hand, bare_cluster, NAMESPACES, MODELS)


@pytest.mark.parametrize(
    ("made_by", "fault", "where", "says"),
    [
        ("us", None, "left", f"namespace {MODELS}, which holds persistentvolumeclaims weights"),
        ("others", None, "kept", f"namespace {MODELS}, which somebody else made"),
        ("us", "list", "left", f"namespace {MODELS}, whose content is not known (The credential may not list"),
        ("us", "get", "left", f"namespace {MODELS}, if it is there (The credential may not get namespaces"),
    ],
)
async def test_a_namespace_of_models_that_stays_is_told_with_the_reason(
    by_hand: ByHand, bare_cluster: KubernetesServer, made_by: str, fault: str | None, where: str, says: str
) -> None:
    cluster_id = await onboarded(by_hand, bare_cluster)
    space = named("v1", "Namespace", MODELS)
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    async with by_hand.administrator(bare_cluster) as client:
        await client.apply(NAMESPACES, space if made_by == "us" else {**space, "metadata": {"name": MODELS}})
        weights = named("v1", "PersistentVolumeClaim", "weights", namespace=MODELS) | {"spec": claim}
        await client.apply(VOLUME_CLAIMS, weights, namespace=MODELS)
    resource = "namespaces" if fault == "get" else "persistentvolumeclaims"
    with ExitStack() as faults:
        if fault:
            faults.enter_context(bare_cluster.fault(Fault("forbidden", verbs=(fault,), resources=(resource,))))
        said = await receipt(by_hand, cluster_id)
    assert said[where][0].startswith(says)
    assert said["removed"] == []
    assert await is_there(by_hand, bare_cluster, VOLUME_CLAIMS, "weights", namespace=MODELS)


async def test_what_a_lost_cluster_may_hold_of_models_is_told(by_hand: ByHand, bare_cluster: KubernetesServer) -> None:
    cluster_id = await onboarded(by_hand, bare_cluster)
    async with by_hand.administrator(bare_cluster) as client:
        await client.delete(SECRETS, token_secret(cluster_id), namespace=SYSTEM_NAMESPACE)
    (said,) = (await receipt(by_hand, cluster_id))["left"]
    assert said.startswith(f"namespace {MODELS}, if it is there (")


async def test_a_stored_credential_that_is_refused_by_now_does_not_keep_the_cluster(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    """ALLOW_LOCAL_SERVERS was switched off since."""
    (said,) = await left(by_hand, await onboarded(by_hand, bare_cluster), allow_local=False)
    assert SYSTEM_NAMESPACE in said
