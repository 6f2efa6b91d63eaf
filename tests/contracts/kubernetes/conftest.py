"""The clusters that the suite is run against, and clients for them.

The simulated one always; a real one when BUDCLUSTER_TEST_KUBECONFIG names a kubeconfig of an administrator. Everything
the suite makes is in namespaces and custom kinds of its own, which it removes.
"""

import os
import ssl
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from kubernetes import client, config
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config

from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer
from tests.contracts.kubernetes.driver import Cluster, Tool

REAL = "BUDCLUSTER_TEST_KUBECONFIG"


@pytest.fixture(scope="session")
def simulated_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with KubernetesServer(Options(nodes="h100x8:1,l40s:1,cpu:2", clock_factor=30)) as server:
        kubeconfig = server.write_kubeconfig(tmp_path_factory.mktemp("sandbox") / "kubeconfig")
        yield Cluster(kubeconfig, simulated=True, server=server)


@pytest.fixture(scope="session", params=["simulated", pytest.param("real", marks=pytest.mark.cluster)])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if request.param == "simulated":
        made: Cluster = request.getfixturevalue("simulated_cluster")
        return made
    if REAL not in os.environ:
        pytest.skip(f"{REAL} names no kubeconfig")
    return Cluster(Path(os.environ[REAL]), simulated=False)


@pytest.fixture
def configuration(cluster: Cluster) -> client.Configuration:
    loaded = client.Configuration()
    config.load_kube_config_from_dict(cluster.configuration, client_configuration=loaded)
    loaded.retries = False
    return loaded


@pytest.fixture
def api(configuration: client.Configuration) -> Iterator[client.ApiClient]:
    with client.ApiClient(configuration) as opened:
        yield opened


@pytest.fixture
def core(api: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api)


@pytest.fixture
async def aio(cluster: Cluster) -> AsyncIterator[aio_client.ApiClient]:
    opened = await aio_config.new_client_from_config_dict(cluster.configuration)
    async with opened:
        yield opened


@pytest.fixture
async def http(configuration: client.Configuration) -> AsyncIterator[httpx.AsyncClient]:
    """A bare HTTP client that trusts the cluster and is known to it."""
    trust = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        trust.load_cert_chain(configuration.cert_file, configuration.key_file)
    token = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    headers = {"authorization": token} if token else {}
    async with httpx.AsyncClient(base_url=configuration.host, verify=trust, headers=headers, timeout=30) as opened:
        yield opened


@pytest.fixture
def namespace(core: client.CoreV1Api) -> Iterator[str]:
    """A namespace that was made for this test and goes with it."""
    name = f"contract-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    try:
        core.delete_namespace(name)
    except client.ApiException as error:
        if error.status != 404:
            raise


@pytest.fixture
def kind_name(api: client.ApiClient) -> Iterator[str]:
    """The name of a kind that nobody uses, for a custom resource; its definition is removed."""
    kind = f"Contract{uuid.uuid4().hex[:8]}"
    yield kind
    try:
        client.ApiextensionsV1Api(api).delete_custom_resource_definition(f"{kind.lower()}s.contract.example.com")
    except client.ApiException as error:
        if error.status != 404:
            raise


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str, tool_home: dict[str, str]) -> Tool:
    return Tool("kubectl", cluster, namespace, tool_home)


@pytest.fixture
def helm(cluster: Cluster, namespace: str, tool_home: dict[str, str]) -> Tool:
    return Tool("helm", cluster, namespace, tool_home)
