"""Which runtime serves a deployment, and which choices each of them knows."""

from dataclasses import replace
from typing import Any, get_args
from uuid import uuid4

import pytest

from budcluster.deployment.errors import ConfigNotUsable
from budcluster.deployment.fitting.model_facts import read_config
from budcluster.deployment.models import RuntimeType
from budcluster.deployment.options import DeploymentConfig, Quantization
from budcluster.deployment.planning import Placement, Site, Wanted, runtime_of, values_of
from budcluster.deployment.runtimes import RUNTIMES, Launch, LaunchRequest
from budcluster.deployment.runtimes.image import image_of
from budcluster.deployment.runtimes.launch import Hardware
from budcluster.deployment.values import Rollout
from tests.deployment.models import LLAMA_70B

NVIDIA = {"hardware": "NVIDIA"}


def _wanted(runtime: RuntimeType | None, **config: Any) -> Wanted:
    return Wanted(uuid4(), "chat", "bud-chat-1", "org/model", runtime, DeploymentConfig(**{**NVIDIA, **config}), None)


def _reason(runtime: RuntimeType | None, **config: Any) -> tuple[str, str]:
    with pytest.raises(ConfigNotUsable) as refused:
        values_of(_wanted(runtime, **config), Site(rooms=()), Placement(Rollout.RECREATE))
    error = refused.value.extensions["errors"][0]
    return error["pointer"], error["detail"]


@pytest.mark.parametrize(
    ("config", "chosen"),
    [
        ({}, RuntimeType.VLLM),
        ({"hardware": "AMD"}, RuntimeType.VLLM),
        ({"hardware": "CPU"}, RuntimeType.VLLM),
        ({"quantization": "torchao"}, RuntimeType.VLLM),
        ({"quantization": "w8a8_int8"}, RuntimeType.SGLANG),
        ({"extra_args": ["--mem-fraction-static", "0.8"]}, RuntimeType.SGLANG),
        ({"extra_args": ["--kv_cache_free_gpu_memory_fraction", "0.8"]}, RuntimeType.TENSORRT_LLM),
    ],
)
def test_auto_is_the_first_runtime_that_knows_every_choice(config: dict[str, Any], chosen: RuntimeType) -> None:
    assert runtime_of(_wanted(None, **config), Site(rooms=())) is chosen


def test_auto_says_why_when_no_runtime_can() -> None:
    assert _reason(None, hardware="HABANA") == (
        "/config/hardware",
        "vLLM has no image for HABANA; it runs on AMD, CPU, NVIDIA",
    )
    pointer, detail = _reason(None, extra_args=["--mem-fraction-static", "0.8", "--seed", "1"])
    assert (pointer, detail.split(" is ")[0]) == ("/config/extra_args", "--mem-fraction-static")


def test_a_runtime_that_was_asked_for_is_not_replaced() -> None:
    pointer, detail = _reason(RuntimeType.VLLM, quantization="w8a8_int8")
    assert pointer == "/config/quantization"
    assert detail.startswith("vLLM 0.33.0 does not know w8a8_int8; it knows auto_awq, ")
    assert _reason(RuntimeType.TENSORRT_LLM, quantization="fp8")[1].startswith("TensorRT-LLM 1.2.1 takes the quant")
    # SGLang 0.5.23 ends with exit code 2 on vLLM's short form.
    assert _reason(RuntimeType.SGLANG, kv_cache_dtype="fp8")[0] == "/config/kv_cache_dtype"


def test_every_method_that_callers_may_name_is_known_to_a_runtime() -> None:
    assert set(get_args(Quantization)) == set().union(*(runtime.quantizations for runtime in RUNTIMES.values()))


DIGEST = "sha256:" + "a" * 64


def _launch(runtime: RuntimeType, **asked: Any) -> Launch:
    return RUNTIMES[runtime].prepare(LaunchRequest("org/model", "chat", **asked))


@pytest.mark.parametrize(
    ("image", "quiet", "drains"),
    [
        ("vllm/vllm-openai:v0.15.1", False, False),
        ("vllm/vllm-openai:v0.17.1", True, False),
        ("vllm/vllm-openai:v0.18.0-cu129", True, True),
        ("registry.example:5000/own/vllm:nightly", True, True),
        (f"vllm/vllm-openai@{DIGEST}", True, True),
        (None, True, True),
    ],
)
def test_an_older_vllm_is_spared_the_flags_that_it_lacks(image: str | None, quiet: bool, drains: bool) -> None:
    args = _launch(RuntimeType.VLLM, image=image).args
    assert ("--disable-access-log-for-endpoints" in args, "--shutdown-timeout" in args) == (quiet, drains)


@pytest.mark.parametrize(
    ("image", "path"), [("lmsysorg/sglang:v0.5.19-cu129", "/health"), ("x/sglang:dev", "/ready"), (None, "/ready")]
)
def test_an_older_sglang_is_asked_where_it_answers(image: str | None, path: str) -> None:
    launch = _launch(RuntimeType.SGLANG, image=image)
    assert (launch.startup.path, launch.readiness.path) == (path, path)
    assert launch.readiness.timeout_s >= 5


@pytest.mark.parametrize(
    ("image", "driver"),
    [
        (None, 580),
        ("lmsysorg/sglang:v0.5.23", 580),
        ("lmsysorg/sglang:v0.6.0", 580),
        ("lmsysorg/sglang:v0.6.0-cu129", None),
        ("lmsysorg/sglang:v0.5.19-cu129", None),
        (f"lmsysorg/sglang@{DIGEST}", None),
    ],
)
def test_the_driver_is_known_for_images_as_new_as_the_pinned_one(image: str | None, driver: int | None) -> None:
    assert RUNTIMES[RuntimeType.SGLANG].driver_for(image) == driver


@pytest.mark.parametrize(
    "reference", ["vllm/vllm-openai", "x@sha256:abc", f"X:{DIGEST}", "a:b:c", "host:99999999/a:b", "a/:b", ""]
)
def test_an_image_is_named_by_tag_or_digest(reference: str) -> None:
    with pytest.raises(ValueError, match="must be repository:tag"):
        image_of(reference)


@pytest.mark.parametrize("runtime", [RuntimeType.VLLM, RuntimeType.SGLANG])
def test_amd_devices_are_reached_through_group_video(runtime: RuntimeType) -> None:
    launch = _launch(runtime, hardware=Hardware.AMD)
    assert launch.pod_security["supplementalGroups"] == [44]
    assert launch.pod_security["seccompProfile"] == {"type": "Unconfined"}
    assert launch.container_security["capabilities"] == {"drop": ["ALL"], "add": ["SYS_PTRACE"]}


def test_object_stores_are_read_by_the_runtimes_that_can() -> None:
    wanted = replace(_wanted(RuntimeType.TENSORRT_LLM), model="s3://bucket/model")
    with pytest.raises(ConfigNotUsable) as refused:
        runtime_of(wanted, Site(rooms=()))
    assert refused.value.extensions["errors"][0]["pointer"] == "/model"
    assert runtime_of(replace(wanted, runtime=None), Site(rooms=())) is RuntimeType.VLLM


def test_weights_are_downloaded_and_kept_as_they_are_however_they_are_loaded() -> None:
    facts = read_config(LLAMA_70B, weights_bytes=141 * 10**9)
    for quantization in (None, "fp8"):
        config = DeploymentConfig(**NVIDIA, quantization=quantization)
        wanted = Wanted(uuid4(), "chat", "bud-chat-1", "org/model", RuntimeType.VLLM, config, facts)
        values = values_of(wanted, Site(rooms=()), Placement(Rollout.RECREATE))
        assert values["cache"]["size"] == "181Gi"
        assert values["probes"]["startup"]["failureThreshold"] > 350


def test_generations_of_gaudi_are_not_told_apart_by_labels() -> None:
    image = {"image": "own/vllm-gaudi:1.0"}
    assert _reason(RuntimeType.VLLM, hardware="HABANA", gpu_model="Gaudi3", **image)[0] == "/config/gpu_model"
