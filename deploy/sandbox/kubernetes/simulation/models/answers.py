"""OpenAI-compatible bodies and engine metrics, small and always the same."""

from __future__ import annotations

from typing import Any

import orjson

from sandbox.kubernetes.simulation.models.situation import Situation

Obj = dict[str, Any]

_TEXT = "This is a simulated answer."
_CREATED = 1_763_899_200


def model_list(case: Situation) -> Obj:
    """/v1/models."""
    row: Obj = {
        "id": case.options.served_name,
        "object": "model",
        "created": _CREATED,
        "owned_by": case.options.runtime,
    }
    if case.options.runtime == "vllm":
        row |= {"root": case.options.model, "max_model_len": case.max_length}
    return {"object": "list", "data": [row]}


def chat(case: Situation, asked: Obj, *, number: int, at: float) -> tuple[bytes, str]:
    """/v1/chat/completions, streamed when asked for: body and media type."""
    common: Obj = {"id": f"chatcmpl-{number:08d}", "created": _CREATED + int(at), "model": case.options.served_name}
    if asked.get("stream"):
        deltas: list[Obj] = [{"role": "assistant", "content": ""}, *({"content": f"{word} "} for word in _TEXT.split())]
        chunks: list[Obj] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        chunks.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        return _stream({**common, "object": "chat.completion.chunk"}, chunks), "text/event-stream; charset=utf-8"
    message = {"role": "assistant", "content": _TEXT}
    choice: Obj = {"index": 0, "message": message, "finish_reason": "stop"}
    return _whole({**common, "object": "chat.completion"}, choice), "application/json"


def completion(case: Situation, asked: Obj, *, number: int, at: float) -> tuple[bytes, str]:
    """/v1/completions."""
    common: Obj = {"id": f"cmpl-{number:08d}", "created": _CREATED + int(at), "model": case.options.served_name}
    common["object"] = "text_completion"
    if asked.get("stream"):
        chunks = [{"index": 0, "text": f"{word} ", "finish_reason": None} for word in _TEXT.split()]
        return _stream(common, chunks), "text/event-stream; charset=utf-8"
    return _whole(common, {"index": 0, "text": _TEXT, "finish_reason": "stop"}), "application/json"


def error(status: int, message: str) -> Obj:
    """The error body that OpenAI clients expect."""
    kind = "NotFoundError" if status == 404 else "BadRequestError"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def _whole(common: Obj, choice: Obj) -> bytes:
    usage = {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18}
    return orjson.dumps({**common, "choices": [choice], "usage": usage})


def _stream(common: Obj, chunks: list[Obj]) -> bytes:
    lines = [b"data: " + orjson.dumps({**common, "choices": [chunk]}) + b"\n\n" for chunk in chunks]
    return b"".join([*lines, b"data: [DONE]\n\n"])


_NAMES = {
    "vllm": (
        ("vllm:num_requests_running", "gauge", 4.0), ("vllm:num_requests_waiting", "gauge", 0.0),
        ("vllm:kv_cache_usage_perc", "gauge", 1.0), ("vllm:prompt_tokens_total", "counter", 12.0),
        ("vllm:generation_tokens_total", "counter", 6.0), ("vllm:request_success_total", "counter", 1.0),
    ),
    "sglang": (
        ("sglang:num_running_reqs", "gauge", 4.0), ("sglang:num_queue_reqs", "gauge", 0.0),
        ("sglang:token_usage", "gauge", 1.0), ("sglang:gen_throughput", "gauge", 100.0),
        ("sglang:prompt_tokens_total", "counter", 12.0), ("sglang:generation_tokens_total", "counter", 6.0),
    ),
    "trtllm": (
        ("trtllm_kv_cache_utilization", "gauge", 1.0), ("trtllm_request_success_total", "counter", 1.0),
    ),
}  # fmt: skip


def engine_metrics(runtime: str, case: Situation, served: int, load: float) -> bytes:
    """Prometheus text: gauges follow the simulated load, counters the requests answered."""
    rows = []
    for name, kind, factor in _NAMES[runtime]:
        value = served * factor if kind == "counter" else round(load * factor, 4)
        labels = f'model_name="{case.options.served_name}",engine="0"'
        rows.append(f"# TYPE {name} {kind}\n{name}{{{labels}}} {value}\n")
    return "".join(rows).encode()
