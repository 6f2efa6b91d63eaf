"""The model runtimes: how each one is started, probed and measured. One module a runtime, pure functions."""

from budcluster.deployment.models import RuntimeType
from budcluster.deployment.runtimes import sglang, tensorrt_llm, vllm
from budcluster.deployment.runtimes.launch import Launch, LaunchRequest, Runtime

RUNTIMES: dict[RuntimeType, Runtime] = {
    RuntimeType.VLLM: vllm.RUNTIME,
    RuntimeType.SGLANG: sglang.RUNTIME,
    RuntimeType.TENSORRT_LLM: tensorrt_llm.RUNTIME,
}

__all__ = ["RUNTIMES", "Launch", "LaunchRequest", "Runtime"]
