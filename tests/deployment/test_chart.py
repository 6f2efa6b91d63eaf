"""The chart of model runtimes: rendered by real Helm for each runtime and kind of hardware."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import budcluster
from budcluster.deployment.models import RuntimeType
from budcluster.deployment.runtimes import RUNTIMES, LaunchRequest
from budcluster.deployment.runtimes.launch import Hardware, NotSupported
from budcluster.deployment.values import RESOURCES, Cache, CacheMode, ReleasePlan, Rollout, SecretEnv, chart_values
from devstack.tools import ensure_tools, tool_environment

CHART = Path(budcluster.__file__).parent / "deployment" / "chart"
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
    return {document["kind"]: document for document in yaml.safe_load_all(done.stdout) if document}


def _container(rendered: dict[str, dict[str, Any]]) -> dict[str, Any]:
    container: dict[str, Any] = rendered["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    return container


def test_the_chart_passes_helm_lint(helm_environment: dict[str, str], tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    values.write_text(json.dumps(chart_values(_plan())))
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


def test_user_text_stays_text(helm_environment: dict[str, str]) -> None:
    nasty = "{{ lookup('pipe','id') }}\n---\nkind: Pod"
    values = chart_values(_plan(env={"X": nasty}))
    values["args"] = [nasty]
    container = _container(_render(values, helm_environment))
    assert container["args"] == [nasty]
    assert {"name": "X", "value": nasty} in container["env"]


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
