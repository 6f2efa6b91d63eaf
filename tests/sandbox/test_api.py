"""CRUD over HTTP: bodies, status codes, lists, pages, views, subresources, custom resources."""

from typing import Any

import httpx
import pytest

from sandbox.kubernetes.app import ApiServer
from tests.sandbox.api import CONFIG_MAPS, DEPLOYMENTS, a_config_map, a_deployment

Obj = dict[str, Any]
MERGE = {"content-type": "application/merge-patch+json"}
STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
PARTIAL = {"accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
PODS = "/api/v1/namespaces/default/pods"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"


def a_widget_definition() -> Obj:
    names = {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    column = {"name": "Size", "type": "integer", "jsonPath": ".spec.size"}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    version["additionalPrinterColumns"] = [column]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def a_pod(name: str, **spec: Any) -> Obj:
    containers = [{"name": "main", "image": "busybox:1"}]
    meta = {"name": name, "labels": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": containers, **spec}}


async def test_an_object_goes_through_its_life(api: httpx.AsyncClient) -> None:
    made = await api.post(DEPLOYMENTS, json=a_deployment("web"))
    assert made.status_code == 201
    read = await api.get(f"{DEPLOYMENTS}/web")
    assert read.json() == made.json()
    body = read.json()
    body["spec"]["replicas"] = 2
    assert (await api.put(f"{DEPLOYMENTS}/web", json=body)).json()["metadata"]["generation"] == 2
    assert (await api.put(f"{DEPLOYMENTS}/web", json=body)).status_code == 409
    gone = await api.delete(f"{DEPLOYMENTS}/web")
    assert gone.json()["status"] == "Success"
    assert (await api.get(f"{DEPLOYMENTS}/web")).json()["message"] == 'deployments.apps "web" not found'


async def test_names_are_generated(api: httpx.AsyncClient) -> None:
    made = await api.post(CONFIG_MAPS, json={"metadata": {"generateName": "run-"}})
    assert made.json()["metadata"]["name"].startswith("run-")
    assert len(made.json()["metadata"]["name"]) == len("run-") + 5


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"{", 400, "json parse error"),
        (b"[]", 400, "is not an object"),
        (b'{"kind": "Pod"}', 400, "cannot be handled as a ConfigMap"),
        (b'{"apiVersion": "v2"}', 400, "does not match the expected API version"),
        (b'{"metadata": {"name": "a", "namespace": "other"}}', 400, "does not match the namespace sent"),
        (b"{}", 422, "name or generateName is required"),
    ],
)
async def test_a_bad_body_is_refused(api: httpx.AsyncClient, body: bytes, code: int, said: str) -> None:
    answer = await api.post(CONFIG_MAPS, content=body)
    assert (answer.status_code, answer.json()["code"]) == (code, code)
    assert said in answer.json()["message"]


async def test_pages_hold_every_object_once(api: httpx.AsyncClient) -> None:
    for number in range(7):
        await api.post(CONFIG_MAPS, json=a_config_map(f"c{number}"))
    seen: list[str] = []
    token = ""
    while True:
        page = (await api.get(CONFIG_MAPS, params={"limit": 3, "continue": token})).json()
        seen += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
        assert page["metadata"]["remainingItemCount"] == 8 - len(seen)
    assert seen == [*(f"c{n}" for n in range(7)), "kube-root-ca.crt"]


async def test_a_page_is_expired_when_the_history_is_forgotten(app: ApiServer, api: httpx.AsyncClient) -> None:
    for number in range(3):
        await api.post(CONFIG_MAPS, json=a_config_map(f"c{number}"))
    token = (await api.get(CONFIG_MAPS, params={"limit": 1})).json()["metadata"]["continue"]
    await api.post(CONFIG_MAPS, json=a_config_map("later"))
    app.cluster.store.history.compact()
    answer = await api.get(CONFIG_MAPS, params={"limit": 1, "continue": token})
    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")


async def test_an_unknown_field_selector_is_refused(api: httpx.AsyncClient) -> None:
    answer = await api.get(PODS, params={"fieldSelector": "spec.color=red"})
    assert answer.status_code == 400
    assert "field label not supported: spec.color" in answer.json()["message"]


async def test_a_table_has_the_columns_of_kubectl(api: httpx.AsyncClient) -> None:
    await api.post(PODS, json=a_pod("a"))
    table = (await api.get(PODS, headers=TABLE)).json()
    titles = [column["name"] for column in table["columnDefinitions"]]
    assert titles[:6] == ["Name", "Ready", "Status", "Restarts", "Age", "IP"]
    assert table["rows"][0]["cells"][:3] == ["a", "0/1", "Pending"]


async def test_metadata_alone_is_sent_when_asked_for(api: httpx.AsyncClient) -> None:
    await api.post(PODS, json=a_pod("a"))
    answer = (await api.get(PODS, headers=PARTIAL)).json()
    assert answer["kind"] == "PartialObjectMetadataList"
    assert set(answer["items"][0]) == {"kind", "apiVersion", "metadata"}


async def test_a_strategic_patch_merges_containers(api: httpx.AsyncClient) -> None:
    await api.post(DEPLOYMENTS, json=a_deployment("web"))
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx:2"}]}}}}
    (container,) = (await api.patch(f"{DEPLOYMENTS}/web", json=patch, headers=STRATEGIC)).json()["spec"]["template"][
        "spec"
    ]["containers"]
    assert (container["image"], container["ports"][0]["containerPort"]) == ("nginx:2", 80)


async def test_nothing_changes_when_a_write_is_dry(api: httpx.AsyncClient) -> None:
    made = (await api.post(DEPLOYMENTS, json=a_deployment("web"))).json()
    dry = await api.patch(f"{DEPLOYMENTS}/web", json={"spec": {"replicas": 9}}, params={"dryRun": "All"}, headers=MERGE)
    assert dry.json()["spec"]["replicas"] == 9
    assert (await api.delete(f"{DEPLOYMENTS}/web", params={"dryRun": "All"})).status_code == 200
    assert (await api.get(f"{DEPLOYMENTS}/web")).json() == made


async def test_scale_is_read_and_written(api: httpx.AsyncClient) -> None:
    await api.post(DEPLOYMENTS, json=a_deployment("web"))
    scaled = await api.patch(f"{DEPLOYMENTS}/web/scale", json={"spec": {"replicas": 4}}, headers=MERGE)
    assert scaled.json()["spec"]["replicas"] == 4
    assert (await api.get(f"{DEPLOYMENTS}/web/scale")).json()["status"]["selector"] == "app=web"
    assert (await api.get(f"{DEPLOYMENTS}/web")).json()["spec"]["replicas"] == 4


async def test_an_eviction_respects_the_budget(app: ApiServer, api: httpx.AsyncClient) -> None:
    await api.post(PODS, json=a_pod("a", nodeName="n"))
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    app.cluster.store.update("Pod", "default", "a", lambda pod: pod.update(status=ready), subresource="status")
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}
    await api.post("/apis/policy/v1/namespaces/default/poddisruptionbudgets", json=budget)
    refused = await api.post(f"{PODS}/a/eviction", json={"metadata": {"name": "a"}})
    assert refused.status_code == 429
    assert refused.json()["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    await api.delete("/apis/policy/v1/namespaces/default/poddisruptionbudgets/b")
    assert (await api.post(f"{PODS}/a/eviction", json={"metadata": {"name": "a"}})).status_code == 201


async def test_a_custom_resource_is_served_as_soon_as_it_is_defined(api: httpx.AsyncClient) -> None:
    assert (await api.get(WIDGETS)).status_code == 404
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await api.post(definitions, json=a_widget_definition())
    conditions = (await api.get(f"{definitions}/widgets.example.com")).json()["status"]["conditions"]
    assert ("Established", "True") in [(c["type"], c["status"]) for c in conditions]
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
    assert (await api.post(WIDGETS, json={**widget, "status": {"ok": True}})).json().get("status") is None
    written = await api.patch(f"{WIDGETS}/w/status", json={"status": {"ok": True}}, headers=MERGE)
    assert written.json()["status"] == {"ok": True}
    assert (await api.patch(f"{WIDGETS}/w", json={}, headers=STRATEGIC)).status_code == 415
    assert (await api.get(WIDGETS, headers=TABLE)).json()["rows"][0]["cells"] == ["w", 3]
    await api.delete(f"{definitions}/widgets.example.com")
    assert (await api.get(WIDGETS)).status_code == 404


async def test_events_are_one_storage_under_two_groups(api: httpx.AsyncClient) -> None:
    event = {"metadata": {"name": "e"}, "note": "said", "regarding": {"kind": "Pod", "name": "a"}, "reason": "Why"}
    await api.post("/apis/events.k8s.io/v1/namespaces/default/events", json=event)
    core = (await api.get("/api/v1/namespaces/default/events/e")).json()
    assert (core["message"], core["involvedObject"]["name"]) == ("said", "a")
    other = (await api.get("/apis/events.k8s.io/v1/namespaces/default/events/e")).json()
    assert (other["note"], other["apiVersion"]) == ("said", "events.k8s.io/v1")


async def test_discovery_names_what_is_served(api: httpx.AsyncClient) -> None:
    assert (await api.get("/version/")).json()["gitVersion"] == "v1.36.2"
    groups = (await api.get("/apis")).json()["groups"]
    assert {"apps", "batch", "events.k8s.io"} <= {group["name"] for group in groups}
    listed = {entry["name"]: entry for entry in (await api.get("/apis/apps/v1")).json()["resources"]}
    assert listed["deployments"]["shortNames"] == ["deploy"]
    assert "shortNames" not in listed["deployments/status"]
    assert (await api.get("/apis/nothing.example/v1")).status_code == 404


async def test_openapi_names_the_parameters_of_patches(api: httpx.AsyncClient) -> None:
    paths = (await api.get("/openapi/v3")).json()["paths"]
    document = (await api.get(paths["apis/apps/v1"]["serverRelativeURL"])).json()
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert {"dryRun", "fieldValidation"} <= {parameter["name"] for parameter in patch["parameters"]}


async def test_health_is_plain_text(api: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert (await api.get(path)).text == "ok"


async def test_every_namespace_gets_its_account_and_authority(api: httpx.AsyncClient) -> None:
    await api.post("/api/v1/namespaces", json={"metadata": {"name": "team"}})
    assert (await api.get("/api/v1/namespaces/team/serviceaccounts/default")).status_code == 200
    root = await api.get("/api/v1/namespaces/team/configmaps/kube-root-ca.crt")
    assert root.json()["data"]["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
    await api.delete("/api/v1/namespaces/team")
    assert (await api.get("/api/v1/namespaces/team")).status_code == 404


async def test_a_log_is_refused_when_no_node_has_the_pod(api: httpx.AsyncClient) -> None:
    await api.post(PODS, json=a_pod("a"))
    answer = await api.get(f"{PODS}/a/log")
    assert (answer.status_code, answer.json()["message"]) == (400, "pod a does not have a host assigned")


async def test_a_namespace_creation_in_protobuf_is_read(api: httpx.AsyncClient) -> None:
    def field(number: int, payload: bytes) -> bytes:
        return bytes([number << 3 | 2, len(payload)]) + payload

    type_meta = field(1, b"v1") + field(2, b"Namespace")
    body = b"k8s\x00" + field(1, type_meta) + field(2, field(1, field(1, b"proto")))
    headers = {"content-type": "application/vnd.kubernetes.protobuf"}
    assert (await api.post("/api/v1/namespaces", content=body, headers=headers)).status_code == 201
    assert (await api.get("/api/v1/namespaces/proto")).status_code == 200


async def test_a_collection_is_deleted_by_selector(api: httpx.AsyncClient) -> None:
    await api.post(CONFIG_MAPS, json=a_config_map("a", labels={"team": "x"}))
    await api.post(CONFIG_MAPS, json=a_config_map("b"))
    await api.delete(CONFIG_MAPS, params={"labelSelector": "team=x"})
    left = [item["metadata"]["name"] for item in (await api.get(CONFIG_MAPS)).json()["items"]]
    assert left == ["b", "kube-root-ca.crt"]
