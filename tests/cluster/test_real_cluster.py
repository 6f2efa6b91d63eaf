"""The same onboarding on a real cluster, where BUDCLUSTER_TEST_KUBECONFIG names an administrator's kubeconfig."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from budcluster.bootstrap import make_service
from budcluster.config import AddonSettings, Settings
from budcluster.kube.client import ClusterClient
from budcluster.kube.kubeconfig import read_kubeconfig
from budcluster.kube.ownership import SYSTEM_NAMESPACE
from budcluster.kube.resources import NAMESPACES, SECRETS
from tests.cluster.conftest import BINDINGS
from tests.deployment.live import until
from tests.fixtures.app import client_of, running
from tests.fixtures.cluster import Onboarder

REAL = "BUDCLUSTER_TEST_KUBECONFIG"

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture
async def real_onboarder(cluster_settings: Settings) -> AsyncIterator[Onboarder]:
    """A service with what it comes with: the authors' charts, and the time that they take."""
    settings = cluster_settings.model_copy(update={"addons": AddonSettings(), "nfd_detection_timeout": 300})
    async with running(make_service(settings)) as app, client_of(app, timeout=60) as client:
        yield Onboarder(client)


@pytest.mark.skipif(REAL not in os.environ, reason=f"{REAL} names no kubeconfig")
async def test_a_real_cluster_ends_ready_and_is_left_as_it_was(real_onboarder: Onboarder) -> None:
    upload = Path(os.environ[REAL]).read_text()
    cluster_id = await real_onboarder.register()
    answer = await real_onboarder.client.post(f"/clusters/{cluster_id}/onboard", json={"kubeconfig": upload})
    assert answer.status_code == 202, answer.text
    operation = await real_onboarder.ended(answer.json()["operation_id"])
    assert operation["status"] == "SUCCEEDED", operation
    cluster = await real_onboarder.cluster(cluster_id)
    assert (cluster["status"], cluster["node_count"] > 0) == ("READY", True)
    addons = (await real_onboarder.client.get(f"/clusters/{cluster_id}/addons")).json()["items"]
    assert {"prometheus", "nfd"} <= {addon["name"] for addon in addons}
    assert [addon for addon in addons if addon["owner"] == "OURS" and addon["state"] != "READY"] == []
    gone = await real_onboarder.client.delete(f"/clusters/{cluster_id}")
    ended = await real_onboarder.ended(gone.json()["operation_id"])
    assert ended["status"] == "SUCCEEDED", ended
    assert not [step for step in ended["steps"] if "May be left" in (step["detail"] or "")]
    own = read_kubeconfig(upload, now=datetime.now(UTC), allow_local=True)
    async with ClusterClient(own, allow_local=True) as client:

        async def ours() -> list[str]:
            pages = client.list_pages(NAMESPACES, label_selector="app.kubernetes.io/managed-by=budcluster")
            return [found["metadata"]["name"] async for page in pages for found in page["items"]]

        await until(ours, lambda names: SYSTEM_NAMESPACE not in names, deadline_s=300)
        bindings = client.list_pages(BINDINGS, label_selector="app.kubernetes.io/managed-by=budcluster")
        assert [found async for page in bindings for found in page["items"]] == []
        records = client.list_pages(SECRETS, label_selector="owner=helm,budcluster.io/managed=true")
        assert [found async for page in records for found in page["items"]] == []
