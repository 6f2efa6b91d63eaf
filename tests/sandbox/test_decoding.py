"""Fields that nobody knows, values of a wrong type, and the schemas that say what there is."""

import subprocess
import sys
from typing import Any

import httpx
import pytest

from sandbox.kubernetes.decoding import Mistyped, decode
from sandbox.kubernetes.resources import Resources
from sandbox.kubernetes.schemas import component, components, model_of
from tests.sandbox.api import CONFIG_MAPS, DEPLOYMENTS, Obj, a_config_map, a_deployment

KINDS = Resources()
UNTYPED = {"NodeMetrics", "PodMetrics"}
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
STRICT = {"fieldValidation": "Strict"}


def with_container(**fields: Any) -> Obj:
    made = a_deployment("web")
    made["spec"]["template"]["spec"]["containers"][0].update(fields)
    return made


def test_every_kind_that_is_served_has_a_model_whose_parts_are_known() -> None:
    models = {kind.kind: model_of(kind.group, version, kind.kind) for kind in KINDS for version in kind.versions}
    assert {kind for kind, model in models.items() if model is None} == UNTYPED
    assert model_of("events.k8s.io", "v1", "Event") != model_of("", "v1", "Event")
    known = components(model for model in models.values() if model)
    assert known["io.k8s.V1.Container"]["properties"]["startupProbe"]["allOf"] == [
        {"$ref": "#/components/schemas/io.k8s.V1.Probe"}
    ]
    assert "fieldRef" in component("V1EnvVarSource")["properties"]


def test_what_is_not_known_is_dropped_and_named_by_its_path() -> None:
    wrong = with_container(port=80, env=[{"name": "A", "valeu": "1"}]) | {"status": {"replicas": 1}, "sepc": {}}
    wrong["metadata"]["labels"] = {"any": "label"}
    read = decode(KINDS.get("Deployment"), wrong)
    assert sorted(read.unknown) == [
        "sepc",
        "spec.template.spec.containers[0].env[0].valeu",
        "spec.template.spec.containers[0].port",
    ]
    (container,) = read.obj["spec"]["template"]["spec"]["containers"]
    assert (container["env"], "port" in container) == ([{"name": "A"}], False)
    assert read.obj["metadata"] == wrong["metadata"]
    assert decode(KINDS.get("Deployment"), read.obj).unknown == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"env": [{"name": "A", "value": 1}]}, "number into Go struct field EnvVar.{}.env.value of type string"),
        ({"ports": {}}, "object into Go struct field Container.{}.ports of type []v1.ContainerPort"),
        ({"stdin": "yes"}, "string into Go struct field Container.{}.stdin of type bool"),
        ({"ports": [{"containerPort": True}]},
         "bool into Go struct field ContainerPort.{}.ports.containerPort of type int32"),
        ({"securityContext": []}, "array into Go struct field Container.{}.securityContext of type v1.SecurityContext"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(fields: Obj, complaint: str) -> None:
    with pytest.raises(Mistyped) as refused:
        decode(KINDS.get("Deployment"), with_container(**fields))
    assert str(refused.value) == "json: cannot unmarshal " + complaint.format("spec.template.spec.containers")


def test_quantities_ports_and_probes_may_be_numbers_or_words() -> None:
    fields = {"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "livenessProbe": {"tcpSocket": {"port": "http"}}}
    assert decode(KINDS.get("Deployment"), with_container(**fields, stdin=None)).unknown == []


async def test_the_writer_chooses_whether_unknown_fields_are_refused_or_warned_of(api: httpx.AsyncClient) -> None:
    wrong = a_config_map("one") | {"nonsense": True, "more": 1}
    refused = await api.post(CONFIG_MAPS, json=wrong, params=STRICT)
    assert (refused.status_code, refused.json()["message"]) == (
        400,
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
        'unknown field "nonsense", unknown field "more"',
    )
    warned = await api.post(CONFIG_MAPS, json=wrong)
    assert warned.status_code == 201
    assert warned.headers.get_list("warning") == [
        r'299 - "unknown field \"nonsense\""',
        r'299 - "unknown field \"more\""',
    ]
    assert {"nonsense", "more"}.isdisjoint(warned.json())
    silent = await api.put(f"{CONFIG_MAPS}/one", json=wrong, params={"fieldValidation": "Ignore"})
    assert (silent.status_code, silent.headers.get("warning")) == (200, None)


async def test_patches_are_held_to_the_same(api: httpx.AsyncClient) -> None:
    await api.post(DEPLOYMENTS, json=a_deployment("web"))
    for kind in ("merge-patch", "strategic-merge-patch"):
        headers = {"content-type": f"application/{kind}+json"}
        patch: Obj = {"spec": {"replica": 2}}
        refused = await api.patch(f"{DEPLOYMENTS}/web", json=patch, params=STRICT, headers=headers)
        assert refused.status_code == 422
        assert 'strict decoding error: unknown field "spec.replica"' in refused.json()["message"]
    applied = a_deployment("web", replica=2)
    headers = {"content-type": "application/apply-patch+yaml"}
    refused = await api.patch(f"{DEPLOYMENTS}/web", json=applied, params={"fieldManager": "me"}, headers=headers)
    assert (refused.status_code, refused.json()["message"]) == (
        500,
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): "
        ".spec.replica: field not declared in schema",
    )


async def test_custom_resources_keep_what_their_definition_names(api: httpx.AsyncClient) -> None:
    spec = {"type": "object", "properties": {"size": {"type": "integer"}, "free": {"type": "object"}}}
    spec["properties"]["free"]["x-kubernetes-preserve-unknown-fields"] = True
    version = {
        "name": "v1", "served": True, "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }  # fmt: skip
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget"}
    made = await api.post(DEFINITIONS, json={
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }, params=STRICT)  # fmt: skip
    assert made.status_code == 201, made.text
    body = {
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"size": 1, "sise": 2, "free": {"as": "air"}},
    }  # fmt: skip
    stored = await api.post("/apis/example.com/v1/namespaces/default/widgets", json=body)
    assert stored.headers["warning"] == r'299 - "unknown field \"spec.sise\""'
    assert stored.json()["spec"] == {"size": 1, "free": {"as": "air"}}
    assert stored.json()["metadata"]["labels"] == {"x": "y"}


async def test_schemas_are_published(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi/v3/apis/apps/v1")).json()
    schemas = document["components"]["schemas"]
    (deployment,) = [one for one in schemas.values() if _is(one, "Deployment")]
    assert deployment["properties"]["spec"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.V1.DeploymentSpec"}]
    assert schemas["io.k8s.V1.DeploymentSpec"]["properties"]["replicas"]["type"] == "integer"
    assert "Number of desired pods" in schemas["io.k8s.V1.DeploymentSpec"]["properties"]["replicas"]["description"]


def _is(schema: Obj, kind: str) -> bool:
    return any(one["kind"] == kind for one in schema.get("x-kubernetes-group-version-kind", ()))


def test_the_client_library_is_read_and_not_imported() -> None:
    program = (
        "import sys; from sandbox.kubernetes.schemas import component; "
        "assert 'replicas' in component('V1DeploymentSpec')['properties']; assert 'kubernetes' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
