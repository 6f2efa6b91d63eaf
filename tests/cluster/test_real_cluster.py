"""The same onboarding on a real cluster, where BUDCLUSTER_TEST_KUBECONFIG names an administrator's kubeconfig."""

import os
from pathlib import Path

import pytest

from tests.fixtures.cluster import Onboarder

REAL = "BUDCLUSTER_TEST_KUBECONFIG"

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.skipif(REAL not in os.environ, reason=f"{REAL} names no kubeconfig")
async def test_a_real_cluster_ends_ready_and_is_left_as_it_was(onboarder: Onboarder) -> None:
    cluster_id = await onboarder.register()
    body = {"kubeconfig": Path(os.environ[REAL]).read_text()}
    answer = await onboarder.client.post(f"/clusters/{cluster_id}/onboard", json=body)
    assert answer.status_code == 202, answer.text
    operation = await onboarder.ended(answer.json()["operation_id"])
    assert operation["status"] == "SUCCEEDED", operation
    cluster = await onboarder.cluster(cluster_id)
    assert (cluster["status"], cluster["node_count"] > 0) == ("READY", True)
    gone = await onboarder.client.delete(f"/clusters/{cluster_id}")
    assert (await onboarder.ended(gone.json()["operation_id"]))["status"] == "SUCCEEDED"
