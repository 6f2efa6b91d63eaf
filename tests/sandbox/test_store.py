"""The sandbox store: versions, conflicts, deletion, ownership, history."""

from typing import Any

import pytest

from sandbox.kubernetes.errors import AlreadyExists, Conflict, Expired, Forbidden, Invalid, NotFound
from sandbox.kubernetes.history import Event
from sandbox.kubernetes.selectors import FieldSelector, LabelSelector
from sandbox.kubernetes.store import Store

Obj = dict[str, Any]


def an_object(kind: str, name: str, *, api_version: str = "v1", **fields: Any) -> Obj:
    labels = fields.pop("labels", {})
    owners = fields.pop("owners", [])
    meta: Obj = {"name": name, "labels": labels}
    if owners:
        meta["ownerReferences"] = [
            {
                "apiVersion": o["apiVersion"],
                "kind": o["kind"],
                "name": o["metadata"]["name"],
                "uid": o["metadata"]["uid"],
            }
            | {"blockOwnerDeletion": True}
            for o in owners
        ]
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **fields}


def a_pod(name: str, **fields: Any) -> Obj:
    spec = {"containers": [{"name": "main", "image": "busybox:1"}], **fields.pop("spec", {})}
    return an_object("Pod", name, spec=spec, **fields)


def a_deployment(name: str) -> Obj:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "a", "image": "b:1"}]}}
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return an_object("Deployment", name, api_version="apps/v1", spec=spec)


@pytest.fixture
def store() -> Store:
    store = Store()
    store.create(an_object("Namespace", "default"))
    return store


def names(objects: list[Obj]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]


def test_a_created_object_gets_uid_version_and_defaults(store: Store) -> None:
    made = store.create(a_deployment("web"))
    assert made["metadata"]["uid"]
    assert made["metadata"]["resourceVersion"]
    assert made["metadata"]["generation"] == 1
    assert made["spec"]["replicas"] == 1


def test_the_callers_dict_is_not_kept_when_created(store: Store) -> None:
    given = a_pod("a")
    store.create(given)
    given["spec"]["containers"].clear()
    assert store.get("Pod", "default", "a")["spec"]["containers"]


def test_a_second_create_is_refused_when_the_name_is_taken(store: Store) -> None:
    store.create(a_pod("a"))
    with pytest.raises(AlreadyExists, match='pods "a" already exists'):
        store.create(a_pod("a"))


def test_a_write_is_refused_when_its_version_is_stale(store: Store) -> None:
    first = store.create(an_object("ConfigMap", "c", data={"a": "1"}))
    store.replace({**first, "data": {"a": "2"}})
    with pytest.raises(Conflict, match="the object has been modified"):
        store.replace({**first, "data": {"a": "3"}})


def test_the_version_stays_when_a_write_changes_nothing(store: Store) -> None:
    made = store.create(a_deployment("web"))
    assert store.replace(made)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_generation_rises_only_when_the_spec_changes(store: Store) -> None:
    store.create(a_deployment("web"))
    labelled = store.update("Deployment", "default", "web", lambda d: d["metadata"].update(labels={"a": "b"}))
    scaled = store.update("Deployment", "default", "web", lambda d: d["spec"].update(replicas=3))
    status = store.update(
        "Deployment", "default", "web", lambda d: d.update(status={"replicas": 3}), subresource="status"
    )
    assert [d and d["metadata"]["generation"] for d in (labelled, scaled, status)] == [1, 2, 2]


def test_the_history_keeps_each_state_with_its_own_version_when_a_status_is_written(store: Store) -> None:
    made = store.create(a_pod("a"))
    begun = int(made["metadata"]["resourceVersion"])
    for phase in ("Running", "Succeeded"):
        store.update(
            "Pod", "default", "a", lambda p, phase=phase: p["status"].update(phase=phase), subresource="status"
        )
    told = [(event.version, event.obj["status"]["phase"]) for event in store.events_since("Pod", begun)]
    assert told == [(begun + 1, "Running"), (begun + 2, "Succeeded")]


def test_status_is_ignored_outside_its_subresource(store: Store) -> None:
    store.create(a_pod("a"))
    store.update("Pod", "default", "a", lambda p: p["status"].update(phase="Running"))
    assert store.get("Pod", "default", "a")["status"]["phase"] == "Pending"


def test_update_returns_none_when_the_object_is_gone(store: Store) -> None:
    assert store.update("Pod", "default", "ghost", lambda p: None) is None


def test_a_scheduled_pod_waits_for_its_kubelet_when_deleted(store: Store) -> None:
    store.create(a_pod("a", spec={"nodeName": "n1"}))
    waiting = store.delete("Pod", "default", "a")
    assert waiting is not None
    assert waiting["metadata"]["deletionGracePeriodSeconds"] == 30
    assert store.delete("Pod", "default", "a", grace_seconds=0) is None
    assert store.find("Pod", "default", "a") is None


def test_an_object_goes_when_its_last_finalizer_does(store: Store) -> None:
    made = an_object("ConfigMap", "c")
    made["metadata"]["finalizers"] = ["example.com/hold"]
    store.create(made)
    assert store.delete("ConfigMap", "default", "c") is not None
    store.update("ConfigMap", "default", "c", lambda c: c["metadata"]["finalizers"].clear())
    assert store.find("ConfigMap", "default", "c") is None


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_dependents_go_with_their_owner(store: Store, propagation: str) -> None:
    owner = store.create(a_deployment("web"))
    middle = store.create(an_object("ConfigMap", "middle", owners=[owner]))
    store.create(an_object("ConfigMap", "leaf", owners=[middle]))
    assert store.delete("Deployment", "default", "web", propagation=propagation) is None
    assert store.list("ConfigMap") == []


def test_dependents_stay_without_owner_when_orphaned(store: Store) -> None:
    owner = store.create(a_deployment("web"))
    store.create(an_object("ConfigMap", "kept", owners=[owner]))
    store.delete("Deployment", "default", "web", propagation="Orphan")
    assert "ownerReferences" not in store.get("ConfigMap", "default", "kept")["metadata"]


def test_a_foreground_owner_waits_for_its_pods(store: Store) -> None:
    owner = store.create(a_deployment("web"))
    store.create(a_pod("a", spec={"nodeName": "n1"}, owners=[owner]))
    assert store.delete("Deployment", "default", "web", propagation="Foreground") is not None
    store.delete("Pod", "default", "a", grace_seconds=0)
    assert store.find("Deployment", "default", "web") is None


def test_a_namespace_goes_when_its_last_object_does(store: Store) -> None:
    store.create(an_object("Namespace", "team"))
    pod = a_pod("a", spec={"nodeName": "n1"})
    pod["metadata"]["namespace"] = "team"
    store.create(pod)
    leaving = store.delete("Namespace", None, "team")
    assert leaving is not None
    assert leaving["status"]["phase"] == "Terminating"
    late = an_object("ConfigMap", "late")
    late["metadata"]["namespace"] = "team"
    with pytest.raises(Forbidden, match="because it is being terminated"):
        store.create(late)
    store.delete("Pod", "team", "a", grace_seconds=0)
    assert store.find("Namespace", None, "team") is None


def test_an_empty_namespace_goes_at_once(store: Store) -> None:
    store.create(an_object("Namespace", "team"))
    store.delete("Namespace", None, "team")
    assert store.find("Namespace", None, "team") is None


def test_create_is_refused_when_the_namespace_is_missing(store: Store) -> None:
    pod = a_pod("a")
    pod["metadata"]["namespace"] = "nowhere"
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        store.create(pod)


def test_lists_are_sorted_and_selected(store: Store) -> None:
    for name, color in (("c", "red"), ("a", "blue"), ("b", "red")):
        store.create(a_pod(name, labels={"color": color}, spec={"nodeName": f"node-{name}"}))
    assert names(store.list("Pod")) == ["a", "b", "c"]
    assert names(store.list("Pod", labels=LabelSelector.parse("color in (red)"))) == ["b", "c"]
    assert names(store.list("Pod", fields=FieldSelector.parse("spec.nodeName=node-a"))) == ["a"]


def test_subscribers_hear_writes_in_order_even_when_they_write(store: Store) -> None:
    heard: list[str] = []

    def answer(event: Event) -> None:
        if event.obj["metadata"]["name"] == "question":
            store.create(an_object("ConfigMap", "answer"))

    store.subscribe(answer, kinds=["ConfigMap"])
    end = store.subscribe(lambda event: heard.append(event.obj["metadata"]["name"]), kinds=["ConfigMap"])
    store.create(an_object("ConfigMap", "question"))
    end()
    store.create(an_object("ConfigMap", "unheard"))
    assert heard == ["question", "answer"]


def test_history_since_a_version_is_complete(store: Store) -> None:
    first = store.create(a_pod("a"))
    store.create(an_object("ConfigMap", "c"))
    store.delete("Pod", "default", "a")
    since = store.events_since("Pod", first["metadata"]["resourceVersion"])
    assert [event.type for event in since] == ["DELETED"]
    assert int(since[0].obj["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])


def test_history_is_expired_when_compacted(store: Store) -> None:
    version = store.create(a_pod("a"))["metadata"]["resourceVersion"]
    store.create(a_pod("b"))
    store.history.compact()
    with pytest.raises(Expired, match="too old resource version"):
        store.events_since("Pod", version)


def test_old_history_is_forgotten_when_the_limit_is_reached() -> None:
    store = Store(history=3)
    store.create(an_object("Namespace", "default"))
    for number in range(5):
        store.create(an_object("ConfigMap", f"c{number}"))
    with pytest.raises(Expired):
        store.events_since("ConfigMap", 2)


def test_the_selector_of_a_workload_is_immutable(store: Store) -> None:
    made = store.create(a_deployment("web"))
    selector = {"matchLabels": {"app": "other"}}
    with pytest.raises(Invalid, match="field is immutable"):
        store.replace({**made, "spec": {**made["spec"], "selector": selector}})


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (an_object("Pod", "a", spec={}), "spec.containers: Required value"),
        (an_object("ConfigMap", "Bad_Name"), "a lowercase RFC 1123 subdomain must consist of"),
        (an_object("ConfigMap", "c", labels={"release": "x" * 64}), "must be no more than 63 bytes"),
        (an_object("ConfigMap", ""), "name or generateName is required"),
    ],
)
def test_an_object_is_refused_when_invalid(store: Store, broken: Obj, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        store.create(broken)
    assert said in caught.value.message
    assert caught.value.status()["details"]["causes"]


def test_nothing_is_stored_when_dry(store: Store) -> None:
    assert store.create(a_pod("a"), dry_run=True)["metadata"]["uid"]
    assert store.find("Pod", "default", "a") is None
