"""Whether a step of an add-on may begin, and what is undone of it."""

from uuid import uuid4

import pytest

from budcluster.cluster.addon_activities import AddonActivities
from budcluster.cluster.contracts import OnboardingPayload
from budcluster.config import AddonSettings
from budcluster.durable.errors import NonRetryableError
from budcluster.hardware.catalogue import Catalogue
from budcluster.kit.clock import SystemClock
from budcluster.kube.helm_errors import NotReadyInTime
from budcluster.operations.models import OperationStep, StepStatus
from budcluster.provisioning.adoption import CLAIMS
from sandbox.kubernetes.server import KubernetesServer
from tests.cluster.conftest import CALL, ByHand

RUNNING, SUCCEEDED = StepStatus.RUNNING, StepStatus.SUCCEEDED


async def prepared_for_steps(by_hand: ByHand, server: KubernetesServer) -> OnboardingPayload:
    """An onboarding of which the cluster is prepared."""
    payload = await by_hand.asked(await by_hand.registered(), server.kubeconfig())
    onboarding = by_hand.onboarding()
    await onboarding.check_access(payload, CALL)
    await onboarding.prepare_cluster(payload, CALL)
    return payload


async def test_a_step_touches_no_cluster_that_another_budcluster_has_taken_over_meanwhile(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    payload = await prepared_for_steps(by_hand, bare_cluster)
    other = str(uuid4())
    async with by_hand.administrator(bare_cluster) as client:
        await client.patch(CLAIMS, "this-cluster", {"spec": {"cluster": other}})
    addons = AddonActivities(by_hand.addon_steps(), Catalogue.of(AddonSettings()), detection_timeout_s=0)
    with pytest.raises(NonRetryableError, match=other):
        await addons.detect_nodes(payload, CALL)
    error = (await by_hand.step(payload, "detect_nodes")).error or {}
    assert error["type"] == "cluster-managed-elsewhere"


@pytest.mark.parametrize(
    ("began", "is_undone"),
    [
        ({}, False),
        ({"install_gpu_operator": (RUNNING, None)}, True),
        ({"install_gpu_operator": (RUNNING, "cluster-unreachable")}, True),
        ({"install_gpu_operator": (RUNNING, "sharing-refused")}, False),
        ({"install_gpu_operator": (SUCCEEDED, None)}, True),
        ({"install_gpu_operator": (SUCCEEDED, None), "install_hami": (RUNNING, "sharing-refused")}, True),
        ({"install_gpu_operator": (RUNNING, "addon-failed")}, True),
    ],
)
async def test_only_what_steps_may_have_left_behind_is_undone(
    by_hand: ByHand, bare_cluster: KubernetesServer, began: dict[str, tuple[StepStatus, str | None]], is_undone: bool
) -> None:
    payload = await prepared_for_steps(by_hand, bare_cluster)
    async with by_hand.database.writing() as session:
        for name, (status, failed) in began.items():
            row = await session.get_one(OperationStep, (payload.operation_id, name))
            row.status, row.started_at = status, SystemClock().now()
            row.error = {"type": failed} if failed else None
    undone: list[str] = []

    async def work(*_: object) -> str:
        undone.append("GPUs")
        return "It is as before."

    await by_hand.addon_steps().undo(payload, "install_gpu_operator", work, of=("install_gpu_operator", "install_hami"))
    assert bool(undone) is is_undone


async def test_what_cannot_be_undone_in_time_is_not_tried_again_and_again(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    payload = await prepared_for_steps(by_hand, bare_cluster)
    async with by_hand.database.writing() as session:
        row = await session.get_one(OperationStep, (payload.operation_id, "install_hami"))
        row.status, row.started_at = RUNNING, SystemClock().now()

    async def work(*_: object) -> str:
        raise NotReadyInTime("HAMi was not ready in time.")

    with pytest.raises(NonRetryableError, match="HAMi was not ready in time"):
        await by_hand.addon_steps().undo(payload, "install_hami", work, of=("install_hami",))
