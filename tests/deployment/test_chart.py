"""The chart of model runtimes: rendered by real Helm for each runtime and kind of hardware."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import budcluster
from budcluster.deployment.models import RuntimeType
from budcluster.deployment.planning import with_replicas
from budcluster.deployment.runtimes import RUNTIMES, LaunchRequest
from budcluster.deployment.runtimes.launch import Hardware, NotSupported
from budcluster.deployment.values import (
    RESOURCES,
    Cache,
    CacheMode,
    ReleasePlan,
    Rollout,
    SecretEnv,
    chart_values,
    without_surge,
)
from devstack.tools import ensure_tools, tool_environment
from sandbox.kubernetes.pod_security import BASELINE, LEVELS, PRIVILEGED, RESTRICTED, violations
from tests.fixtures.manifests import unknown_fields

CHART = Path(budcluster.__file__).parent / "deployment" / "chart"
TAKEN_BY = {
    (RuntimeType.VLLM, Hardware.NVIDIA): RESTRICTED,
    # Binding memory to NUMA nodes, and ROCm's tracing of itself, need system calls that only the lowest level allows.
    (RuntimeType.VLLM, Hardware.CPU): PRIVILEGED,
    (RuntimeType.VLLM, Hardware.AMD): PRIVILEGED,
    (RuntimeType.SGLANG, Hardware.AMD): PRIVILEGED,
    # These images run as root.
    (RuntimeType.SGLANG, Hardware.NVIDIA): BASELINE,
    (RuntimeType.SGLANG, Hardware.CPU): BASELINE,
    (RuntimeType.TENSORRT_LLM, Hardware.NVIDIA): BASELINE,
}
"""The strictest Pod Security Standard that takes the pods."""
COMBINATIONS = [
    (runtime, hardware)
    for runtime, known in RUNTIMES.items()
    for hardware in sorted(known.hardware)
]  # fmt: skip


@pytest.fixture(scope="session")
def helm_environment() -> dict[str, str]:
    ensure_tools()
    return tool_environment()


def _plan(runtime: RuntimeType = RuntimeType.VLLM, **changes: Any) -> ReleasePlan:
    asked = changes.pop("request", {})
    request = LaunchRequest("meta-llama/Llama-3.1-8B-Instruct", "llama", **asked)
    launch = RUNTIMES[runtime].launch(request)
    defaults: dict[str, Any] = {"replicas": 1, "rollout": Rollout.RECREATE}
    if launch_hardware := RESOURCES.get(request.hardware):
        defaults["resource"] = launch_hardware
    return ReleasePlan("0b7e", runtime, request, launch, **(defaults | changes))


def _render(values: dict[str, Any], environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    argv = ["helm", "template", "bud-llama-0b7e1234", str(CHART), "--values", "-", "--kube-version", "1.36.0"]
    done = subprocess.run(argv, input=json.dumps(values), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    manifests = [document for document in yaml.safe_load_all(done.stdout) if document]
    assert {one["kind"]: found for one in manifests if (found := unknown_fields(one))} == {}
    return {one["kind"]: one for one in manifests}


def _container(rendered: dict[str, dict[str, Any]]) -> dict[str, Any]:
    container: dict[str, Any] = rendered["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    return container


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_chart_passes_helm_lint(runtime: RuntimeType, helm_environment: dict[str, str], tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    plan = _plan(runtime, replicas=2, ingress_host="llama.example.org", has_pod_monitors=True, network_policy=True)
    values.write_text(json.dumps(chart_values(plan)))
    argv = ["helm", "lint", "--strict", str(CHART), "--values", str(values)]
    done = subprocess.run(argv, capture_output=True, text=True, env=helm_environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("runtime", "hardware"), COMBINATIONS)
def test_every_runtime_renders_for_every_hardware_it_runs_on(
    runtime: RuntimeType, hardware: Hardware, helm_environment: dict[str, str]
) -> None:
    rendered = _render(chart_values(_plan(runtime, request={"hardware": hardware})), helm_environment)
    assert set(rendered) >= {"Deployment", "Service"}
    deployment, container = rendered["Deployment"]["spec"], _container(rendered)
    pod = deployment["template"]["spec"]
    startup = container["startupProbe"]
    budget = startup["periodSeconds"] * startup["failureThreshold"]
    assert budget >= 1800
    assert deployment["progressDeadlineSeconds"] > budget
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert container["resources"]["limits"] == ({} if hardware is Hardware.CPU else {_resource(hardware): 1})
    assert all(taint["operator"] == "Exists" for taint in pod.get("tolerations", []))
    levels = [level for level in LEVELS if not list(violations(pod, level))]
    assert levels[-1] == TAKEN_BY[runtime, hardware]


def _resource(hardware: Hardware) -> str:
    return {Hardware.NVIDIA: "nvidia.com/gpu", Hardware.AMD: "amd.com/gpu"}[hardware]


def test_sglang_and_tensorrt_listen_where_probes_reach_them(helm_environment: dict[str, str]) -> None:
    for runtime in (RuntimeType.SGLANG, RuntimeType.TENSORRT_LLM):
        args = _container(_render(chart_values(_plan(runtime)), helm_environment))["args"]
        assert args[args.index("--host") + 1] == "0.0.0.0"


def test_a_slow_health_answer_does_not_kill_sglang(helm_environment: dict[str, str]) -> None:
    container = _container(_render(chart_values(_plan(RuntimeType.SGLANG)), helm_environment))
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["timeoutSeconds"] >= 25


def test_tensorrt_is_told_to_answer_prometheus(helm_environment: dict[str, str]) -> None:
    rendered = _render(chart_values(_plan(RuntimeType.TENSORRT_LLM, has_pod_monitors=True)), helm_environment)
    assert json.loads(rendered["ConfigMap"]["data"]["serve.json"])["return_perf_metrics"] is True
    assert rendered["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["path"] == "/prometheus/metrics"


def test_a_share_of_a_gpu_asks_for_memory_and_cores(helm_environment: dict[str, str]) -> None:
    plan = _plan(share_memory_mib=24_000, share_cores_percent=30)
    limits = _container(_render(chart_values(plan), helm_environment))["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 24_000, "nvidia.com/gpucores": 30}


def test_several_whole_gpus_on_hami_switch_its_control_off(helm_environment: dict[str, str]) -> None:
    plan = _plan(request={"tensor_parallel": 2, "whole_gpus_on_hami": True})
    assert {"name": "CUDA_DISABLE_CONTROL", "value": "true"} in _container(
        _render(chart_values(plan), helm_environment)
    )["env"]


def test_a_large_model_gets_a_larger_startup_budget_and_cache(helm_environment: dict[str, str]) -> None:
    plan = _plan(request={"file_bytes": 400 * 1024**3}, cache=Cache(CacheMode.PVC))
    rendered = _render(chart_values(plan), helm_environment)
    assert _container(rendered)["startupProbe"]["failureThreshold"] > 900
    assert rendered["PersistentVolumeClaim"]["spec"]["resources"]["requests"]["storage"] == "530Gi"


def test_a_token_reaches_the_container_by_reference_only(helm_environment: dict[str, str]) -> None:
    plan = _plan(secret_env=(SecretEnv("HF_TOKEN", "bud-llama", "token"),))
    assert {
        "name": "HF_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "bud-llama", "key": "token"}},
    } in _container(_render(chart_values(plan), helm_environment))["env"]


def test_extras_render_when_asked_for(helm_environment: dict[str, str]) -> None:
    plan = _plan(replicas=3, network_policy=True, ingress_host="llama.example.org", gpu_model="NVIDIA-L40S")
    rendered = _render(chart_values(plan), helm_environment)
    assert {"NetworkPolicy", "Ingress", "PodDisruptionBudget"} <= set(rendered)


def _pod(rendered: dict[str, dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = rendered["Deployment"]["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize(
    ("hardware", "label", "names"),
    [
        (Hardware.NVIDIA, "nvidia.com/gpu.product", ["Tesla-T4", "Tesla-T4-SHARED"]),
        (Hardware.AMD, "amd.com/gpu.product-name", ["Tesla-T4"]),
    ],
)
def test_a_gpu_model_is_asked_for_by_the_labels_of_its_vendor(
    hardware: Hardware, label: str, names: list[str], helm_environment: dict[str, str]
) -> None:
    plan = _plan(request={"hardware": hardware}, gpu_model="Tesla-T4")
    affinity = _pod(_render(chart_values(plan), helm_environment))["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [{"key": label, "operator": "In", "values": names}]}]


def test_promised_nodes_are_preferred_and_copies_on_one_are_not_drawn_apart(helm_environment: dict[str, str]) -> None:
    packed = _pod(_render(chart_values(_plan(replicas=3, nodes=("a", "a", "b"))), helm_environment))
    preferred = packed["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [term["preference"]["matchFields"][0]["values"] for term in preferred] == [["a"], ["b"]]
    assert "topologySpreadConstraints" not in packed
    apart = _pod(_render(chart_values(_plan(replicas=2, nodes=("a", "b"))), helm_environment))
    assert apart["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"


def test_hami_is_told_to_fill_node_after_node(helm_environment: dict[str, str]) -> None:
    rendered = _render(chart_values(_plan(on_hami=True)), helm_environment)
    annotations = rendered["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"hami.io/node-scheduler-policy": "binpack"}


def test_without_gpus_the_control_plane_is_avoided(helm_environment: dict[str, str]) -> None:
    pod = _pod(_render(chart_values(_plan(request={"hardware": Hardware.CPU})), helm_environment))
    (term,) = pod["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    (wanted,) = term["preference"]["matchExpressions"]
    assert wanted == {"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}


def test_an_image_may_be_named_by_its_digest(helm_environment: dict[str, str]) -> None:
    digest = "sha256:" + "a" * 64
    for image in (f"own/vllm@{digest}", f"host:5000/own/vllm:v1@{digest}", "own/vllm:v1"):
        rendered = _render(chart_values(_plan(request={"image": image})), helm_environment)
        assert _container(rendered)["image"] == image


@pytest.mark.parametrize(
    ("cache", "volume"),
    [
        (Cache(), {"emptyDir": {"sizeLimit": "200Gi"}}),
        (Cache(CacheMode.PVC), {"persistentVolumeClaim": {"claimName": "bud-llama-0b7e1234-cache"}}),
        (Cache(CacheMode.EXISTING, claim="models"), {"persistentVolumeClaim": {"claimName": "models"}}),
        (
            Cache(CacheMode.HOST_PATH, host_path="/var/lib/budcluster/models"),
            {"hostPath": {"path": "/var/lib/budcluster/models", "type": "DirectoryOrCreate"}},
        ),
    ],
    ids=lambda value: str(value.mode) if isinstance(value, Cache) else "",
)
def test_the_cache_is_mounted_from_where_it_is_kept(
    cache: Cache, volume: dict[str, Any], helm_environment: dict[str, str]
) -> None:
    rendered = _render(chart_values(_plan(cache=cache)), helm_environment)
    assert {"name": "cache", **volume} in _pod(rendered)["volumes"]
    assert ("PersistentVolumeClaim" in rendered) is (cache.mode is CacheMode.PVC)
    assert ("initContainers" in _pod(rendered)) is (cache.mode is CacheMode.HOST_PATH)


def test_a_folder_of_the_node_is_given_to_the_user_who_writes_there(helm_environment: dict[str, str]) -> None:
    cache = Cache(CacheMode.HOST_PATH, host_path="/var/lib/budcluster/models")
    pod = _pod(_render(chart_values(_plan(cache=cache)), helm_environment))
    (owner,) = pod["initContainers"]
    assert (owner["command"], owner["image"]) == (["chown", "2000:0", "/cache"], pod["containers"][0]["image"])
    assert owner["resources"]["requests"] == {"cpu": "10m", "memory": "16Mi"}
    assert owner["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert owner["securityContext"]["runAsNonRoot"] is False, "the kubelet refuses root to a pod that is none"
    values = chart_values(_plan(cache=cache))
    del values["podSecurityContext"]["runAsNonRoot"]
    (owner,) = _pod(_render(values, helm_environment))["initContainers"]
    assert "runAsNonRoot" not in owner["securityContext"], "values of before make the pods of before: none is replaced"
    by_root = _pod(_render(chart_values(_plan(RuntimeType.SGLANG, cache=cache)), helm_environment))
    assert "initContainers" not in by_root


def test_a_kept_claim_survives_its_release(helm_environment: dict[str, str]) -> None:
    for keep in (True, False):
        rendered = _render(chart_values(_plan(cache=Cache(CacheMode.PVC, keep=keep))), helm_environment)
        annotations = rendered["PersistentVolumeClaim"]["metadata"].get("annotations", {})
        assert (annotations.get("helm.sh/resource-policy") == "keep") is keep


def test_the_number_of_copies_may_be_left_to_whoever_scales(helm_environment: dict[str, str]) -> None:
    values = chart_values(_plan()) | {"replicas": None}
    assert "replicas" not in _render(values, helm_environment)["Deployment"]["spec"]


def test_only_the_number_of_copies_changes_with_it(helm_environment: dict[str, str]) -> None:
    values = chart_values(_plan(replicas=2, nodes=("a", "a")))
    two, five = (_render(with_replicas(values, count), helm_environment)["Deployment"]["spec"] for count in (2, 5))
    assert (two.pop("replicas"), five.pop("replicas")) == (2, 5)
    assert two == five


def test_https_is_answered_where_certificates_are_set(helm_environment: dict[str, str]) -> None:
    plan = _plan(ingress_host="llama.example.org", ingress_tls=True, ingress_tls_secret="models-tls")
    spec = _render(chart_values(plan), helm_environment)["Ingress"]["spec"]
    assert spec["tls"] == [{"hosts": ["llama.example.org"], "secretName": "models-tls"}]
    number = _plan(ingress_host="1e3", ingress_tls=True)
    assert _render(chart_values(number), helm_environment)["Ingress"]["spec"]["rules"][0]["host"] == "1e3"
    plain = _plan(ingress_host="llama.example.org")
    assert "tls" not in _render(chart_values(plain), helm_environment)["Ingress"]["spec"]


def test_user_text_stays_text(helm_environment: dict[str, str]) -> None:
    nasty = "{{ lookup('pipe','id') }}\n---\nkind: Pod"
    values = chart_values(_plan(env={"X": nasty}))
    values["args"] = [nasty]
    container = _container(_render(values, helm_environment))
    assert container["args"] == [nasty]
    assert {"name": "X", "value": nasty} in container["env"]


def test_a_field_that_kubernetes_does_not_know_would_be_found() -> None:
    misspelt = {"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"port": []}}
    assert unknown_fields(misspelt) == ["spec.port"]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [({"replicas": -1}, "replicas"), ({"replicas": 1.5}, "replicas"), ({"port": 0}, "port"), ({"typo": 1}, "typo")],
)
def test_wrong_values_are_refused_by_the_schema(
    spoil: dict[str, Any], named: str, helm_environment: dict[str, str]
) -> None:
    values = json.dumps(chart_values(_plan()) | spoil)
    argv = ["helm", "template", "x", str(CHART), "--values", "-"]
    done = subprocess.run(argv, input=values, capture_output=True, text=True, env=helm_environment, check=False)
    assert done.returncode != 0
    assert named in done.stderr


def test_hardware_without_an_image_is_refused_with_what_there_is() -> None:
    with pytest.raises(NotSupported, match="TensorRT-LLM has no image for AMD; it runs on NVIDIA"):
        _plan(RuntimeType.TENSORRT_LLM, request={"hardware": Hardware.AMD})


@pytest.mark.parametrize(
    ("change", "leaving", "strategy"),
    [
        ({}, None, "RollingUpdate"),
        ({}, {}, "RollingUpdate"),
        ({}, {"rollout": Rollout.RECREATE}, "Recreate"),
        ({"request": {"tensor_parallel": 2}}, {}, "Recreate"),
        ({}, {"request": {"tensor_parallel": 2}}, "RollingUpdate"),
        ({"gpu_model": "Tesla-T4"}, {}, "Recreate"),
        ({"share_memory_mib": 8000}, {"share_memory_mib": 4000}, "Recreate"),
        ({"cache": Cache(CacheMode.PVC)}, {}, "Recreate"),
        ({"replicas": 1}, {}, "Recreate"),
    ],
)
def test_the_way_back_never_needs_more_room_than_what_leaves_it(
    change: dict[str, Any], leaving: dict[str, Any] | None, strategy: str
) -> None:
    plans = {"replicas": 3, "rollout": Rollout.SURGE}
    values = chart_values(_plan(**(plans | change)))
    left = None if leaving is None else chart_values(_plan(**(plans | leaving)))
    back = without_surge(values, leaving=left)["strategy"]
    assert (back["type"], back["maxSurge"]) == (strategy, 0)
