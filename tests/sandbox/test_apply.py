"""Server-side apply: ownership, removal, conflicts."""

from typing import Any

import httpx

from tests.sandbox.api import CONFIG_MAPS, DEPLOYMENTS, a_config_map, a_deployment

Obj = dict[str, Any]


async def apply(api: httpx.AsyncClient, url: str, obj: Obj, manager: str, *, force: bool = False) -> httpx.Response:
    params = {"fieldManager": manager, "force": str(force).lower()}
    headers = {"content-type": "application/apply-patch+yaml"}
    return await api.patch(f"{url}/{obj['metadata']['name']}", json=obj, params=params, headers=headers)


async def test_apply_creates_what_is_missing_and_owns_its_fields(api: httpx.AsyncClient) -> None:
    answer = await apply(api, CONFIG_MAPS, a_config_map("c", data={"a": "1"}), "helm")
    assert answer.status_code == 201
    (entry,) = answer.json()["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("helm", "Apply")
    assert entry["fieldsV1"]["f:data"] == {"f:a": {}}


async def test_fields_left_out_disappear_when_applied_again(api: httpx.AsyncClient) -> None:
    await apply(api, CONFIG_MAPS, a_config_map("c", data={"a": "1", "b": "2"}), "helm")
    again = await apply(api, CONFIG_MAPS, a_config_map("c", data={"a": "1"}), "helm")
    assert again.json()["data"] == {"a": "1"}


async def test_an_item_left_out_disappears_as_a_whole(api: httpx.AsyncClient) -> None:
    def web(*names: str) -> Obj:
        obj = a_deployment("web")
        env = [{"name": name, "value": "1"} for name in names]
        obj["spec"]["template"]["spec"]["containers"][0]["env"] = env
        return obj

    await apply(api, DEPLOYMENTS, web("A", "B"), "helm")
    again = await apply(api, DEPLOYMENTS, web("A"), "helm")
    assert again.json()["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]


async def test_fields_of_others_stay_when_applied_again(api: httpx.AsyncClient) -> None:
    await apply(api, CONFIG_MAPS, a_config_map("c", data={"a": "1", "b": "2"}), "helm")
    await apply(api, CONFIG_MAPS, a_config_map("c", data={"b": "2"}), "other")
    again = await apply(api, CONFIG_MAPS, a_config_map("c", data={"a": "1"}), "helm")
    assert again.json()["data"] == {"a": "1", "b": "2"}


async def test_the_version_stays_when_the_same_is_applied_twice(api: httpx.AsyncClient) -> None:
    first = await apply(api, DEPLOYMENTS, a_deployment("web"), "helm")
    second = await apply(api, DEPLOYMENTS, a_deployment("web"), "helm")
    assert second.json()["metadata"]["resourceVersion"] == first.json()["metadata"]["resourceVersion"]


async def test_apply_is_refused_when_another_manager_changed_the_field(api: httpx.AsyncClient) -> None:
    await apply(api, DEPLOYMENTS, a_deployment("web", replicas=1), "helm")
    scaled = {"spec": {"replicas": 5}}
    headers = {"content-type": "application/merge-patch+json"}
    await api.patch(f"{DEPLOYMENTS}/web", json=scaled, params={"fieldManager": "kubectl"}, headers=headers)
    refused = await apply(api, DEPLOYMENTS, a_deployment("web", replicas=2), "helm")
    assert refused.status_code == 409
    said = 'Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas'
    assert refused.json()["message"] == said
    assert refused.json()["details"]["causes"][0]["reason"] == "FieldManagerConflict"


async def test_apply_takes_the_field_over_when_forced(api: httpx.AsyncClient) -> None:
    await apply(api, CONFIG_MAPS, a_config_map("c", data={"a": "1"}), "one")
    taken = await apply(api, CONFIG_MAPS, a_config_map("c", data={"a": "2"}), "two", force=True)
    assert taken.json()["data"] == {"a": "2"}
    assert [
        entry["manager"] for entry in taken.json()["metadata"]["managedFields"] if "f:data" in entry["fieldsV1"]
    ] == ["two"]


async def test_conflicts_are_listed_by_manager(api: httpx.AsyncClient) -> None:
    await apply(api, CONFIG_MAPS, a_config_map("c", data={"a": "1", "b": "1"}), "one")
    refused = await apply(api, CONFIG_MAPS, a_config_map("c", data={"a": "2", "b": "2"}), "two")
    said = 'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\n- .data.b'
    assert refused.json()["message"] == said


async def test_items_of_associative_lists_are_owned_one_by_one(api: httpx.AsyncClient) -> None:
    await apply(api, DEPLOYMENTS, a_deployment("web"), "helm")
    sidecar = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": [{"name": "proxy", "image": "envoy:1"}]}}},
    }
    both = await apply(api, DEPLOYMENTS, sidecar, "mesh")
    assert {c["name"] for c in both.json()["spec"]["template"]["spec"]["containers"]} == {"main", "proxy"}
    again = await apply(api, DEPLOYMENTS, a_deployment("web", image="nginx:2"), "helm")
    images = {c["name"]: c["image"] for c in again.json()["spec"]["template"]["spec"]["containers"]}
    assert images == {"main": "nginx:2", "proxy": "envoy:1"}


async def test_apply_needs_a_field_manager(api: httpx.AsyncClient) -> None:
    refused = await apply(api, CONFIG_MAPS, a_config_map("c"), "")
    assert refused.status_code == 422
    assert "fieldManager: Required value: is required for apply patch" in refused.json()["message"]


async def test_a_yaml_body_is_understood(api: httpx.AsyncClient) -> None:
    body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: b\n"
    headers = {"content-type": "application/apply-patch+yaml"}
    answer = await api.patch(f"{CONFIG_MAPS}/c", content=body, params={"fieldManager": "x"}, headers=headers)
    assert answer.json()["data"] == {"a": "b"}
