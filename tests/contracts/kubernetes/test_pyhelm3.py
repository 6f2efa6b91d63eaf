"""pyhelm3 over Helm 4."""

from pathlib import Path

import pytest
from pyhelm3 import Client, errors
from pyhelm3.models import ReleaseRevisionStatus

from tests.contracts.kubernetes.driver import Cluster
from tests.contracts.kubernetes.objects import MISSING

pytestmark = pytest.mark.slow

BATTERY = Path(__file__).with_name("chart")


@pytest.fixture
def client(cluster: Cluster, tool_home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Client:
    for name, value in tool_home.items():
        monkeypatch.setenv(name, value)
    return Client(kubeconfig=cluster.kubeconfig, default_timeout="60s")


async def test_the_life_of_a_release(client: Client, namespace: str) -> None:
    chart = await client.get_chart(str(BATTERY))
    assert (chart.metadata.name, chart.metadata.version) == ("battery", "1.0.0")
    revision = await client.install_or_upgrade_release(
        "one", chart, {"message": "first"}, namespace=namespace, wait=True
    )
    assert (revision.revision, revision.status) == (1, ReleaseRevisionStatus.DEPLOYED)
    second = await client.install_or_upgrade_release(
        "one", chart, {"message": "second"}, namespace=namespace, wait=True, rollback_on_failure=True
    )
    assert second.revision == 2
    assert await second.values() == {"message": "second"}
    kinds = [resource["kind"] for resource in await second.resources()]
    assert sorted(kinds) == ["ConfigMap", "Deployment", "Service"]
    assert [release.name for release in await client.list_releases(namespace=namespace)] == ["one"]
    await client.uninstall_release("one", namespace=namespace, wait=True)
    with pytest.raises(errors.ReleaseNotFoundError):
        await client.get_current_revision("one", namespace=namespace)


async def test_nothing_is_done_when_nothing_changed(client: Client, namespace: str) -> None:
    chart = await client.get_chart(str(BATTERY))
    await client.ensure_release("one", chart, {"message": "same"}, namespace=namespace, wait=True)
    again = await client.ensure_release("one", chart, {"message": "same"}, namespace=namespace, wait=True)
    assert again.revision == 1


async def test_an_upgrade_that_fails_is_taken_back(client: Client, namespace: str) -> None:
    chart = await client.get_chart(str(BATTERY))
    await client.install_or_upgrade_release("one", chart, namespace=namespace, wait=True)
    with pytest.raises(errors.Error):
        await client.install_or_upgrade_release(
            "one", chart, {"image": MISSING}, namespace=namespace, rollback_on_failure=True, timeout="6s", wait=True
        )
    current = await client.get_current_revision("one", namespace=namespace)
    assert (current.revision, current.status) == (3, ReleaseRevisionStatus.DEPLOYED)
    assert await current.values() == {}
