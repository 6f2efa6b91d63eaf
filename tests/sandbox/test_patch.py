"""JSON, merge and strategic merge patches."""

from typing import Any

import pytest

from sandbox.kubernetes.errors import BadRequest
from sandbox.kubernetes.patch import UnprocessablePatch, json_patch, merge_patch, strategic_merge

Obj = dict[str, Any]


def a_spec(*containers: Obj) -> Obj:
    return {"spec": {"template": {"spec": {"containers": list(containers)}}}}


def containers_of(obj: Obj) -> list[Obj]:
    containers: list[Obj] = obj["spec"]["template"]["spec"]["containers"]
    return containers


def test_a_json_patch_applies_its_operations() -> None:
    patched = json_patch(
        {"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}, {"op": "test", "path": "/a/0", "value": 1}]
    )
    assert patched == {"a": [1, 2]}


def test_a_json_patch_is_refused_when_its_test_fails() -> None:
    with pytest.raises(UnprocessablePatch):
        json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": 2}])


def test_a_json_patch_is_refused_when_it_is_no_list() -> None:
    with pytest.raises(BadRequest):
        json_patch({}, {})


def test_a_merge_patch_removes_nulls_and_replaces_lists() -> None:
    assert merge_patch({"a": {"b": 1, "c": [1]}}, {"a": {"b": None, "c": [2]}}) == {"a": {"c": [2]}}


def test_containers_merge_by_name_in_a_strategic_patch() -> None:
    live = a_spec({"name": "a", "image": "a:1", "command": ["x"]}, {"name": "b", "image": "b:1"})
    patched = strategic_merge(live, a_spec({"name": "a", "image": "a:2"}))
    assert containers_of(patched) == [{"name": "a", "image": "a:2", "command": ["x"]}, {"name": "b", "image": "b:1"}]


def test_container_ports_merge_by_container_port() -> None:
    live = a_spec({"name": "a", "ports": [{"containerPort": 80, "name": "http"}]})
    patched = strategic_merge(live, a_spec({"name": "a", "ports": [{"containerPort": 81}]}))
    assert [port["containerPort"] for port in containers_of(patched)[0]["ports"]] == [80, 81]


def test_service_ports_merge_by_port() -> None:
    live = {"spec": {"ports": [{"port": 80, "targetPort": 8000}]}}
    patched = strategic_merge(live, {"spec": {"ports": [{"port": 80, "targetPort": 9000}]}})
    assert patched["spec"]["ports"] == [{"port": 80, "targetPort": 9000}]


def test_an_item_goes_when_its_patch_says_delete() -> None:
    live = a_spec({"name": "a"}, {"name": "b"})
    assert containers_of(strategic_merge(live, a_spec({"name": "a", "$patch": "delete"}))) == [{"name": "b"}]


def test_a_map_is_replaced_when_its_patch_says_so() -> None:
    patched = strategic_merge({"spec": {"strategy": {"a": 1}}}, {"spec": {"strategy": {"$patch": "replace", "b": 2}}})
    assert patched["spec"]["strategy"] == {"b": 2}


def test_only_named_keys_stay_when_the_patch_retains_keys() -> None:
    live = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge(live, patch)["spec"]["strategy"] == {"type": "Recreate"}


def test_items_take_the_order_that_the_patch_sets() -> None:
    live = a_spec({"name": "a"}, {"name": "b"})
    patch = a_spec({"name": "c"})
    patch["spec"]["template"]["spec"]["$setElementOrder/containers"] = [{"name": "b"}, {"name": "c"}, {"name": "a"}]
    assert [item["name"] for item in containers_of(strategic_merge(live, patch))] == ["b", "c", "a"]


def test_finalizers_merge_as_a_set_and_are_deleted_one_by_one() -> None:
    live = {"metadata": {"finalizers": ["x/a", "x/b"]}}
    added = strategic_merge(live, {"metadata": {"finalizers": ["x/c", "x/a"]}})
    assert added["metadata"]["finalizers"] == ["x/a", "x/b", "x/c"]
    removed = strategic_merge(live, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/a"]}})
    assert removed["metadata"]["finalizers"] == ["x/b"]


def test_tolerations_are_replaced_as_a_whole() -> None:
    live = {"spec": {"tolerations": [{"key": "a"}]}}
    assert strategic_merge(live, {"spec": {"tolerations": [{"key": "b"}]}})["spec"]["tolerations"] == [{"key": "b"}]
