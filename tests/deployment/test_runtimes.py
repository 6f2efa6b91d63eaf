"""Which runtime serves a deployment, and which choices each of them knows."""

from typing import Any, get_args
from uuid import uuid4

import pytest

from budcluster.deployment.errors import ConfigNotUsable
from budcluster.deployment.models import RuntimeType
from budcluster.deployment.options import DeploymentConfig, Quantization
from budcluster.deployment.planning import Placement, Site, Wanted, runtime_of, values_of
from budcluster.deployment.runtimes import RUNTIMES
from budcluster.deployment.values import Rollout

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
