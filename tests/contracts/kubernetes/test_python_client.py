"""The official Python client, synchronous: typed, dynamic, watching, logs and commands."""

import copy
from typing import Any

import pytest
from kubernetes import client, stream, watch
from kubernetes.dynamic import DynamicClient

from tests.contracts.kubernetes.driver import Cluster, eventually
from tests.contracts.kubernetes.objects import BUSYBOX, MISSING, PAUSE, config_map, container, deployment, job, pod


def known_by(configuration: client.Configuration, token: str) -> client.Configuration:
    """The same server, and a token in place of the administrator's credentials."""
    stranger = copy.deepcopy(configuration)
    stranger.refresh_api_key_hook = stranger.cert_file = stranger.key_file = None
    stranger.api_key = {"BearerToken": f"Bearer {token}"}
    return stranger


def test_nodes_and_versions_are_read_typed(core: client.CoreV1Api, api: client.ApiClient) -> None:
    nodes = core.list_node().items
    assert nodes
    assert all(node.status.node_info.kubelet_version.startswith("v1.") for node in nodes)
    assert all("cpu" in node.status.allocatable for node in nodes)
    assert client.VersionApi(api).get_code().major == "1"


def test_creating_twice_is_a_conflict(core: client.CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, config_map("once", a="1"))
    assert made.metadata.uid
    assert made.metadata.creation_timestamp
    with pytest.raises(client.ApiException) as refusal:
        core.create_namespaced_config_map(namespace, config_map("once"))
    assert refusal.value.status == 409
    assert '"reason":"AlreadyExists"' in refusal.value.body.replace(" ", "")


def test_writing_over_something_newer_is_a_conflict(core: client.CoreV1Api, namespace: str) -> None:
    old = core.create_namespaced_config_map(namespace, config_map("shared", a="1"))
    newer = copy.deepcopy(old)
    newer.data = {"a": "2"}
    core.replace_namespaced_config_map("shared", namespace, newer)
    old.data = {"a": "3"}
    with pytest.raises(client.ApiException) as refusal:
        core.replace_namespaced_config_map("shared", namespace, old)
    assert refusal.value.status == 409
    assert "the object has been modified" in refusal.value.body


def test_what_is_missing_is_not_found(core: client.CoreV1Api, namespace: str) -> None:
    with pytest.raises(client.ApiException) as refusal:
        core.read_namespaced_pod("none", namespace)
    assert refusal.value.status == 404
    assert 'pods \\"none\\" not found' in refusal.value.body


def test_a_wrong_token_is_refused(configuration: client.Configuration) -> None:
    with client.ApiClient(known_by(configuration, "wrong")) as stranger, pytest.raises(client.ApiException) as refusal:
        client.CoreV1Api(stranger).list_node()
    assert refusal.value.status == 401
    assert "Unauthorized" in refusal.value.body


def test_a_service_account_may_do_only_what_it_was_given(
    core: client.CoreV1Api, api: client.ApiClient, namespace: str, configuration: client.Configuration
) -> None:
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "reader"}})
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    client.RbacAuthorizationV1Api(api).create_namespaced_role_binding(
        namespace, {"metadata": {"name": "reader"}, "roleRef": role, "subjects": [subject]}
    )
    token = core.create_namespaced_service_account_token("reader", namespace, {"spec": {"expirationSeconds": 3600}})
    with client.ApiClient(known_by(configuration, token.status.token)) as reading:
        reader = client.CoreV1Api(reading)
        assert reader.list_namespaced_pod(namespace).items == []
        with pytest.raises(client.ApiException) as refusal:
            reader.create_namespaced_config_map(namespace, config_map("no"))
        may = client.AuthorizationV1Api(reading).create_self_subject_access_review(
            {"spec": {"resourceAttributes": {"namespace": namespace, "verb": "delete", "resource": "pods"}}}
        )
    assert refusal.value.status == 403
    expected = f'User \\"system:serviceaccount:{namespace}:reader\\" cannot create resource \\"configmaps\\"'
    assert expected in refusal.value.body
    assert may.status.allowed is False


def test_a_deployment_becomes_ready_scales_and_goes(
    core: client.CoreV1Api, api: client.ApiClient, namespace: str
) -> None:
    apps = client.AppsV1Api(api)
    apps.create_namespaced_deployment(namespace, deployment("web"))
    eventually(lambda: apps.read_namespaced_deployment("web", namespace).status.ready_replicas == 1)
    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 3}})
    eventually(lambda: apps.read_namespaced_deployment("web", namespace).status.ready_replicas == 3)
    live = apps.read_namespaced_deployment("web", namespace)
    assert live.status.observed_generation == live.metadata.generation == 2
    apps.patch_namespaced_deployment("web", namespace, {"metadata": {"labels": {"more": "1"}}})
    assert apps.read_namespaced_deployment("web", namespace).metadata.generation == 2
    apps.delete_namespaced_deployment("web", namespace)
    eventually(lambda: not core.list_namespaced_pod(namespace).items)


def test_a_job_completes_whatever_its_restart_policy(api: client.ApiClient, namespace: str) -> None:
    batch = client.BatchV1Api(api)
    for restart in ("Never", "OnFailure"):
        batch.create_namespaced_job(namespace, job(f"job-{restart.lower()}", restart=restart))
    for restart in ("Never", "OnFailure"):
        eventually(lambda: batch.read_namespaced_job(f"job-{restart.lower()}", namespace).status.succeeded == 1)  # noqa: B023 - used at once


def test_an_image_that_cannot_be_pulled_says_so(core: client.CoreV1Api, namespace: str) -> None:
    core.create_namespaced_pod(namespace, pod("stuck", containers=[container(MISSING)]))

    def reason() -> str | None:
        statuses = core.read_namespaced_pod("stuck", namespace).status.container_statuses
        waiting = statuses[0].state.waiting if statuses else None
        return waiting.reason if waiting else None

    eventually(lambda: reason() in {"ErrImagePull", "ImagePullBackOff"})
    events = eventually(
        lambda: [
            event.reason
            for event in core.list_namespaced_event(namespace, field_selector="involvedObject.name=stuck").items
        ]
    )
    assert "Scheduled" in events


def test_a_watch_tells_of_changes_and_resumes_where_it_was(core: client.CoreV1Api, namespace: str) -> None:
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("seen", a="1"))
    core.patch_namespaced_config_map("seen", namespace, {"data": {"a": "2"}})
    core.delete_namespaced_config_map("seen", namespace)
    watcher = watch.Watch()
    told = []
    for event in watcher.stream(
        core.list_namespaced_config_map,
        namespace,
        resource_version=start,
        field_selector="metadata.name=seen",
        timeout_seconds=30,
    ):
        told.append(event["type"])
        if event["type"] == "DELETED":
            watcher.stop()
    assert told == ["ADDED", "MODIFIED", "DELETED"]


def test_an_object_enters_and_leaves_a_selection(core: client.CoreV1Api, namespace: str) -> None:
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("moving"))
    core.patch_namespaced_config_map("moving", namespace, {"metadata": {"labels": {"in": "yes"}}})
    core.patch_namespaced_config_map("moving", namespace, {"metadata": {"labels": {"in": "no"}}})
    watcher = watch.Watch()
    told = []
    for event in watcher.stream(
        core.list_namespaced_config_map, namespace, resource_version=start, label_selector="in=yes", timeout_seconds=30
    ):
        told.append(event["type"])
        if event["type"] == "DELETED":
            watcher.stop()
    assert told == ["ADDED", "DELETED"]


def test_pages_add_up_to_the_list(core: client.CoreV1Api, namespace: str) -> None:
    for number in range(10):
        core.create_namespaced_config_map(namespace, config_map(f"page-{number}"))
    names: list[str] = []
    pages = 0
    more = None
    while pages == 0 or more:
        page = core.list_namespaced_config_map(namespace, limit=3, _continue=more)
        names += [item.metadata.name for item in page.items]
        more = page.metadata._continue
        pages += 1
    assert [name for name in names if name.startswith("page-")] == [f"page-{number}" for number in range(10)]
    assert pages >= 4


def test_logs_and_commands_of_a_container(core: client.CoreV1Api, namespace: str) -> None:
    talking = container(BUSYBOX, command=["sh", "-c", "echo hello; sleep 3600"])
    core.create_namespaced_pod(namespace, pod("talker", containers=[talking]))
    eventually(lambda: core.read_namespaced_pod("talker", namespace).status.phase == "Running")
    assert eventually(lambda: core.read_namespaced_pod_log("talker", namespace).strip())
    assert command(core, namespace, "talker", "echo", "inside") == ("inside\n", 0)
    assert command(core, namespace, "talker", "false") == ("", 1)


def command(core: client.CoreV1Api, namespace: str, name: str, *words: str) -> tuple[str, int]:
    """What a command in the pod wrote, and how it ended."""
    # Neither with preloaded content nor by its own `close` does the client let go of a socket that the server closed.
    running = stream.stream(
        core.connect_get_namespaced_pod_exec,
        name,
        namespace,
        command=list(words),
        stdout=True,
        stderr=True,
        _preload_content=False,
    )
    running.run_forever(timeout=30)
    code = running.returncode
    written = running.read_all()
    running.sock.shutdown()
    return written, code


def test_an_evicted_pod_goes(core: client.CoreV1Api, namespace: str) -> None:
    core.create_namespaced_pod(namespace, pod("leaving"))
    core.create_namespaced_pod_eviction("leaving", namespace, {"metadata": {"name": "leaving", "namespace": namespace}})
    eventually(lambda: not core.list_namespaced_pod(namespace).items)


def test_the_dynamic_client_applies_on_the_servers_side(api: client.ApiClient, namespace: str) -> None:
    config_maps = DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
    first = config_maps.server_side_apply(config_map("shared", a="1"), namespace=namespace, field_manager="first")
    assert [entry["manager"] for entry in first.metadata.managedFields] == ["first"]
    with pytest.raises(client.ApiException) as refusal:
        config_maps.server_side_apply(config_map("shared", a="2"), namespace=namespace, field_manager="second")
    assert refusal.value.status == 409
    forced = config_maps.server_side_apply(
        config_map("shared", a="2"), namespace=namespace, field_manager="second", force_conflicts=True
    )
    assert forced.data.a == "2"


def unschedulable(core: client.CoreV1Api, namespace: str) -> str:
    """What the scheduler says of the first pod that it can place nowhere."""
    conditions = [each for one in core.list_namespaced_pod(namespace).items for each in one.status.conditions or []]
    return next((each.message for each in conditions if each.reason == "Unschedulable"), "")


def test_pods_wait_when_no_node_has_what_they_ask_for(core: client.CoreV1Api, namespace: str) -> None:
    asking: Any = container(PAUSE, resources={"limits": {"example.com/unheard-of": "1"}})
    core.create_namespaced_pod(namespace, pod("asking", containers=[asking]))
    told = eventually(lambda: unschedulable(core, namespace))
    assert "nodes are available" in told
    assert "Insufficient example.com/unheard-of" in told


def test_devices_are_counted(core: client.CoreV1Api, namespace: str, cluster: Cluster) -> None:
    if not cluster.simulated:
        pytest.skip("nodes of a real cluster are left alone")
    card = f"example.com/{namespace}"
    nodes = [node.metadata.name for node in core.list_node().items]
    for name in nodes[:2]:
        core.patch_node_status(name, {"status": {"capacity": {card: "8"}, "allocatable": {card: "8"}}})
    asking: Any = container(PAUSE, resources={"limits": {card: "4"}})
    for number in range(5):
        spec = pod(f"worker-{number}", containers=[asking], tolerations=[{"operator": "Exists"}])
        core.create_namespaced_pod(namespace, spec)

    def phases() -> list[str]:
        return sorted(each.status.phase for each in core.list_namespaced_pod(namespace).items)

    eventually(lambda: phases() == ["Pending", "Running", "Running", "Running", "Running"])
    told = eventually(lambda: unschedulable(core, namespace))
    assert told.startswith(f"0/{len(nodes)} nodes are available:")
    assert f"{len(nodes)} Insufficient {card}" in told
