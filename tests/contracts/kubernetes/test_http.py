"""The API as it goes over the wire: formats, lists, versions of objects, watches, patches."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from tests.contracts.kubernetes.driver import PATIENCE_S, Cluster
from tests.contracts.kubernetes.objects import config_map, custom, definition, deployment

Object = dict[str, Any]

PATCHES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


def maps_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


async def made(http: httpx.AsyncClient, path: str, body: Object) -> Object:
    response = await http.post(path, json=body)
    assert response.status_code == 201, response.text
    created: Object = response.json()
    return created


async def patched(http: httpx.AsyncClient, path: str, kind: str, change: Any, **query: str) -> httpx.Response:
    return await http.patch(path, content=json.dumps(change), headers={"content-type": PATCHES[kind]}, params=query)


async def answers(http: httpx.AsyncClient, path: str, status: int) -> None:
    """Wait until the path answers so."""
    async with asyncio.timeout(PATIENCE_S):
        while (await http.get(path)).status_code != status:  # noqa: ASYNC110 - the effect is in another process
            await asyncio.sleep(0.05)


async def events(response: httpx.Response) -> AsyncIterator[Object]:
    async with asyncio.timeout(20):
        async for line in response.aiter_lines():
            if line:
                yield orjson.loads(line)


@pytest.mark.parametrize(
    "path", ["/version", "/version/", "/livez", "/readyz", "/api", "/apis", "/api/v1", "/apis/apps/v1"]
)
async def test_the_usual_doors_are_open(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 200


async def test_every_kind_is_described_for_apply(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi/v3")).json()["paths"]
    document = (await http.get(paths["apis/apps/v1"]["serverRelativeURL"])).json()
    operation = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert operation["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert {"dryRun", "fieldValidation"} <= {parameter.get("name") for parameter in operation["parameters"]}


async def test_short_names_are_not_repeated_on_subresources(http: httpx.AsyncClient) -> None:
    resources = (await http.get("/apis/apps/v1")).json()["resources"]
    named = {resource["name"]: resource.get("shortNames", []) for resource in resources}
    assert named["deployments"] == ["deploy"]
    assert not [name for name, short in named.items() if "/" in name and short]


async def test_lists_and_their_objects_say_what_they_are(http: httpx.AsyncClient, namespace: str) -> None:
    await made(http, maps_of(namespace), config_map("here"))
    listed = (await http.get(maps_of(namespace))).json()
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert listed["metadata"]["resourceVersion"].isdigit()
    single = (await http.get(f"{maps_of(namespace)}/here")).json()
    assert (single["kind"], single["apiVersion"]) == ("ConfigMap", "v1")


async def test_tables_and_metadata_are_given_when_asked_for(http: httpx.AsyncClient, namespace: str) -> None:
    await made(http, maps_of(namespace), config_map("here", a="1"))
    as_table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    table = (await http.get(f"{maps_of(namespace)}", headers=as_table)).json()
    assert table["kind"] == "Table"
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert ["here", 1] in [row["cells"][:2] for row in table["rows"]]
    as_metadata = {"accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
    metadata = (await http.get(maps_of(namespace), headers=as_metadata)).json()
    assert metadata["kind"] == "PartialObjectMetadataList"
    assert all("data" not in item for item in metadata["items"])


async def test_a_write_that_changes_nothing_is_no_new_version(http: httpx.AsyncClient, namespace: str) -> None:
    first = await made(http, maps_of(namespace), config_map("still", a="1"))
    path = f"{maps_of(namespace)}/still"
    put = (await http.put(path, json=first)).json()
    merged = (await patched(http, path, "merge", {"data": {"a": "1"}})).json()
    versions = {each["metadata"]["resourceVersion"] for each in (first, put, merged)}
    assert len(versions) == 1


async def test_status_is_a_door_of_its_own(http: httpx.AsyncClient, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    await made(http, path, deployment("web", replicas=0))
    await patched(http, f"{path}/web", "merge", {"status": {"replicas": 7}})
    assert (await http.get(f"{path}/web")).json()["status"].get("replicas") != 7
    await patched(http, f"{path}/web/status", "merge", {"spec": {"replicas": 9}})
    assert (await http.get(f"{path}/web")).json()["spec"]["replicas"] == 0


async def test_what_is_owned_goes_with_its_owner(http: httpx.AsyncClient, namespace: str) -> None:
    owner = await made(http, maps_of(namespace), config_map("owner"))
    owned = config_map("owned")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned["metadata"]["ownerReferences"] = [reference]
    await made(http, maps_of(namespace), owned)
    await http.delete(f"{maps_of(namespace)}/owner")
    await answers(http, f"{maps_of(namespace)}/owned", 404)


async def test_a_finalizer_holds_an_object_until_it_is_taken_off(http: httpx.AsyncClient, namespace: str) -> None:
    held = config_map("held")
    held["metadata"]["finalizers"] = ["contract.example.com/hold"]
    await made(http, maps_of(namespace), held)
    path = f"{maps_of(namespace)}/held"
    assert (await http.delete(path)).json()["metadata"]["deletionTimestamp"]
    assert (await http.get(path)).status_code == 200
    await patched(http, path, "merge", {"metadata": {"finalizers": None}})
    assert (await http.get(path)).status_code == 404


async def test_pages_keep_to_the_state_of_the_first(http: httpx.AsyncClient, namespace: str) -> None:
    for number in range(5):
        await made(http, maps_of(namespace), config_map(f"page-{number}"))
    first = (
        await http.get(maps_of(namespace), params={"limit": "2", "fieldSelector": "metadata.name!=kube-root-ca.crt"})
    ).json()
    assert len(first["items"]) == 2
    rest = (
        await http.get(maps_of(namespace), params={"limit": "500", "continue": first["metadata"]["continue"]})
    ).json()
    names = [item["metadata"]["name"] for item in first["items"] + rest["items"]]
    assert [name for name in names if name.startswith("page-")] == [f"page-{number}" for number in range(5)]
    assert "continue" not in rest["metadata"]


async def test_a_version_too_old_is_gone(http: httpx.AsyncClient, namespace: str, cluster: Cluster) -> None:
    if cluster.server is not None:
        cluster.server.expire_history()
    query = {"watch": "1", "resourceVersion": "1", "timeoutSeconds": "5"}
    response = await http.get(maps_of(namespace), params=query)
    told = orjson.loads(response.text.splitlines()[0])
    # The API server may say so as an answer, or as the first event of a watch that it has already begun.
    status = told["object"] if response.status_code == 200 else told
    assert (status["code"], status["reason"]) == (410, "Expired")


async def test_a_watch_can_begin_with_what_there_is(http: httpx.AsyncClient, namespace: str) -> None:
    await made(http, maps_of(namespace), config_map("here"))
    query = {
        "watch": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "fieldSelector": "metadata.name!=kube-root-ca.crt",
        "timeoutSeconds": "20",
    }
    told = []
    async with http.stream("GET", maps_of(namespace), params=query) as response:
        async for event in events(response):
            told.append(event)
            if event["type"] == "BOOKMARK":
                break
    assert [event["type"] for event in told] == ["ADDED", "BOOKMARK"]
    assert told[-1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert told[-1]["object"]["kind"] == "ConfigMap"


@pytest.mark.parametrize("word", ["true", "True", "1"])
async def test_every_spelling_of_watch_is_understood(http: httpx.AsyncClient, namespace: str, word: str) -> None:
    await made(http, maps_of(namespace), config_map("here"))
    async with http.stream("GET", maps_of(namespace), params={"watch": word, "timeoutSeconds": "20"}) as response:
        async for event in events(response):
            assert event["type"] == "ADDED"
            break


async def test_strategic_patches_merge_lists_by_their_keys(http: httpx.AsyncClient, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    await made(http, path, deployment("web", replicas=0))

    async def containers(change: Any) -> list[Object]:
        body = {"spec": {"template": {"spec": change}}}
        answer = await patched(http, f"{path}/web", "strategic", body)
        assert answer.status_code == 200, answer.text
        found: list[Object] = answer.json()["spec"]["template"]["spec"]["containers"]
        return found

    two = await containers({"containers": [{"name": "side", "image": "side:1"}]})
    assert {each["name"] for each in two} == {"main", "side"}
    changed = await containers(
        {"containers": [{"name": "side", "ports": [{"containerPort": 80}, {"containerPort": 81}]}]}
    )
    side = next(each for each in changed if each["name"] == "side")
    assert side["image"] == "side:1"
    assert [port["containerPort"] for port in side["ports"]] == [80, 81]
    order = [{"name": "side"}, {"name": "main"}]
    ordered = await containers(
        {"$setElementOrder/containers": order, "containers": [{"name": "main", "image": "main:2"}]}
    )
    assert [each["name"] for each in ordered] == ["side", "main"]
    left = await containers({"containers": [{"name": "side", "$patch": "delete"}]})
    assert [each["name"] for each in left] == ["main"]


async def test_custom_resources_know_no_strategic_patch(
    http: httpx.AsyncClient, namespace: str, kind_name: str
) -> None:
    plural = f"{kind_name.lower()}s"
    await made(http, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(plural, kind_name))
    path = f"/apis/contract.example.com/v1/namespaces/{namespace}/{plural}"
    await answers(http, path, 200)
    await made(http, path, custom(kind_name, "first", size=1))
    assert (await patched(http, f"{path}/first", "strategic", {"spec": {"size": 2}})).status_code == 415
    assert (await patched(http, f"{path}/first", "merge", {"spec": {"size": 2}})).json()["spec"] == {"size": 2}


async def test_an_applied_field_goes_when_its_only_manager_drops_it(http: httpx.AsyncClient, namespace: str) -> None:
    path = f"{maps_of(namespace)}/applied"
    first = await patched(http, path, "apply", config_map("applied", a="1", b="2"), fieldManager="me")
    assert first.status_code == 201
    second = await patched(http, path, "apply", config_map("applied", a="1"), fieldManager="me")
    assert (second.status_code, second.json()["data"]) == (200, {"a": "1"})
    other = await patched(http, path, "apply", config_map("applied", a="2"), fieldManager="other")
    assert other.status_code == 409
    assert [cause["field"] for cause in other.json()["details"]["causes"]] == [".data.a"]


async def test_wrong_bodies_are_refused_with_the_reason(http: httpx.AsyncClient, namespace: str) -> None:
    assert (
        await http.post(maps_of(namespace), content=b"{not json", headers={"content-type": "application/json"})
    ).status_code == 400
    assert (await http.post(maps_of(namespace), content=b"a", headers={"content-type": "text/html"})).status_code == 415
    bad = await http.post(maps_of(namespace), json=config_map("Not A Name"))
    assert (bad.status_code, bad.json()["reason"]) == (422, "Invalid")
