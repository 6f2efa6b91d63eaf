"""The server behind TLS: its certificate, its kubeconfig, real clients, and its outages."""

import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from kubernetes import client, config
from kubernetes.stream import stream
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.sandbox.api import a_deployment

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer(Options(nodes="cpu:2", clock_factor=50)) as running:
        yield running


@pytest.fixture
def http(server: KubernetesServer) -> Iterator[httpx.Client]:
    trusted = ssl.create_default_context(cadata=server.ca_pem)
    headers = {"authorization": f"Bearer {server.cluster.tokens.admin}"}
    with httpx.Client(base_url=server.url, verify=trusted, headers=headers, timeout=DEADLINE_S) as session:
        yield session


@pytest.fixture
def kube(server: KubernetesServer) -> Iterator[client.ApiClient]:
    with config.new_client_from_config_dict(yaml.safe_load(server.kubeconfig())) as api:
        yield api
        api.rest_client.pool_manager.clear()


def test_the_kubeconfig_is_for_its_owner_alone(server: KubernetesServer, tmp_path: Path) -> None:
    path = server.write_kubeconfig(tmp_path / "kubeconfig")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert yaml.safe_load(path.read_text())["clusters"][0]["cluster"]["server"] == server.url


def test_a_stranger_does_not_trust_the_certificate(server: KubernetesServer) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{server.url}/version")


def test_the_python_client_runs_a_deployment_and_a_command(kube: client.ApiClient) -> None:
    core, apps = client.CoreV1Api(kube), client.AppsV1Api(kube)
    apps.create_namespaced_deployment("default", a_deployment("web"))
    pod = _ready_pod(core)
    session = stream(
        core.connect_get_namespaced_pod_exec, pod, "default", command=["hostname"], stdout=True, _preload_content=False
    )
    session.run_forever(timeout=DEADLINE_S)
    assert (session.read_stdout().strip(), session.returncode) == (pod, 0)
    session.close()
    session.sock.shutdown()
    apps.delete_namespaced_deployment("web", "default")


@pytest.mark.parametrize(("who", "code"), [("viewer", 403), ("admin", 404)])
def test_a_command_is_refused_with_its_status(server: KubernetesServer, who: str, code: int) -> None:
    url = f"wss://127.0.0.1:{server.port}/api/v1/namespaces/default/pods/ghost/exec?command=hostname"
    headers = {"authorization": f"Bearer {getattr(server.cluster.tokens, who)}"}
    trusted = ssl.create_default_context(cadata=server.ca_pem)
    with pytest.raises(InvalidStatus) as caught:
        connect(
            url, ssl=trusted, additional_headers=headers, subprotocols=[Subprotocol("v5.channel.k8s.io")], proxy=None
        )
    assert caught.value.response.status_code == code


def test_nodes_are_there_from_the_start(kube: client.ApiClient) -> None:
    assert len(client.CoreV1Api(kube).list_node().items) == 2


def test_a_dropped_connection_ends_without_an_answer(server: KubernetesServer, http: httpx.Client) -> None:
    with server.fault(Fault("drop", resources=("nodes",))), pytest.raises(httpx.TransportError):
        http.get("/api/v1/nodes")
    assert http.get("/api/v1/nodes").status_code == 200


def test_the_server_goes_and_comes_back(server: KubernetesServer, http: httpx.Client) -> None:
    with server.gone(), pytest.raises(httpx.TransportError):
        http.get("/version")
    assert http.get("/version").status_code == 200
    server.be_gone(0.3)
    assert _answers(http)


def test_an_expired_certificate_is_noticed(server: KubernetesServer, http: httpx.Client) -> None:
    server.expire_certificate()
    with pytest.raises(httpx.ConnectError, match="certificate has expired"):
        http.get("/version")
    server.expire_certificate(expired=False)
    assert _answers(http)


def _ready_pod(core: client.CoreV1Api) -> str:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for pod in core.list_namespaced_pod("default", label_selector="app=web").items:
            if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or ()):
                name: str = pod.metadata.name
                return name
    pytest.fail("no pod became ready")


def _answers(http: httpx.Client) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            return http.get("/version").status_code == 200
        except httpx.TransportError:
            continue
    return False
