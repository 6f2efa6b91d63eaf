"""Whether a step of an add-on may begin."""

from uuid import uuid4

import pytest

from budcluster.cluster.addon_activities import AddonActivities
from budcluster.config import AddonSettings
from budcluster.durable.errors import NonRetryableError
from budcluster.hardware.catalogue import Catalogue
from budcluster.provisioning.adoption import CLAIMS
from sandbox.kubernetes.server import KubernetesServer
from tests.cluster.conftest import CALL, ByHand


async def test_a_step_touches_no_cluster_that_another_budcluster_has_taken_over_meanwhile(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    payload = await by_hand.asked(await by_hand.registered(), bare_cluster.kubeconfig())
    onboarding = by_hand.onboarding()
    await onboarding.check_access(payload, CALL)
    await onboarding.prepare_cluster(payload, CALL)
    other = str(uuid4())
    async with by_hand.administrator(bare_cluster) as client:
        await client.patch(CLAIMS, "this-cluster", {"spec": {"cluster": other}})
    addons = AddonActivities(by_hand.addon_steps(), Catalogue.of(AddonSettings()), detection_timeout_s=0)
    with pytest.raises(NonRetryableError, match=other):
        await addons.detect_nodes(payload, CALL)
    error = (await by_hand.step(payload, "detect_nodes")).error or {}
    assert error["type"] == "cluster-managed-elsewhere"
