"""How far a copy is on its way to serving, from its pod and the end of its log. Pure.

Log texts are those of vLLM 0.33, SGLang 0.5.23, TensorRT-LLM 1.2 and huggingface_hub; a line that none of them matches
says nothing. The shares are what usual starts take: pulling an image of 20 GB, downloading, loading, compiling.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, order=True)
class Progress:
    """Percent of the way, and what happens now."""

    percent: float
    detail: str


QUEUED: Final = Progress(1, "Waiting for a node")
PLACED: Final = Progress(4, "Placed on a node")
PULLING: Final = Progress(6, "Pulling the image")
STARTED: Final = Progress(25, "Starting the runtime")
READY: Final = Progress(100, "Serving")


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a log line stands on the way; one with a percentage moves on from `at` by a part of `span`."""

    pattern: re.Pattern[str]
    at: float
    detail: str
    span: float = 0


def _mark(pattern: str, at: float, detail: str, span: float = 0) -> _Mark:
    return _Mark(re.compile(pattern, re.IGNORECASE), at, detail, span)


_MARKS: Final = (
    # First, since these lines print the whole config, which names what comes later.
    _mark(
        r"api server version|server_args=|non-default args|tensorrt llm version|initializing a v1 llm engine", 28,
        "Reading the config",
    ),
    _mark(r"application startup complete|fired up and ready to roll", 97, "Waiting for the first readiness probe"),
    _mark(r"graph capturing finished|capture cuda graph end", 94, "Warming up"),
    _mark(r"capturing (?:cuda )?graph\w*.*?(?P<percent>\d{1,3})%", 88, "Capturing graphs", 6),
    _mark(
        r"gpu kv cache size|kv cache is allocated|available kv cache memory|model init total", 86,
        "Allocating the cache",
    ),
    _mark(r"torch\.compile takes|dynamo bytecode transform time|compiling a graph for", 80, "Compiling"),
    _mark(r"loading model weights took|loading weights took|load weight end", 76, "Weights are loaded"),
    _mark(r"(?:checkpoint shards|safetensors weights)\D*(?P<percent>\d{1,3})%", 60, "Loading weights", 16),
    _mark(r"load weight begin|starting to load model", 30, "Getting the weights"),
    _mark(r"(?:\.safetensors|\.bin|fetching \d+ files|downloading)[^%]*?(?P<percent>\d{1,3})%", 30, "Downloading", 30),
)  # fmt: skip


def progress_of(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]], log: Sequence[str]) -> Progress:
    """Of one pod; `log` is the end of its present container's."""
    status = pod.get("status") or {}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
    if conditions.get("Ready") == "True":
        return READY
    containers = status.get("containerStatuses") or [{}]
    if "running" in (containers[0].get("state") or {}):
        return max([STARTED, *(found for line in log if (found := read_line(line)))])
    if conditions.get("PodScheduled") != "True":
        return QUEUED
    reasons = {event.get("reason") for event in events}
    if int(containers[0].get("restartCount") or 0) > 0:
        return Progress(PULLING.percent, "Waiting to be restarted")
    return PULLING if "Pulling" in reasons else PLACED


def read_line(line: str) -> Progress | None:
    """Where a log line stands on the way; None when it says nothing of it.

    A bar that is drawn over and over is one line: its last drawing counts.
    """
    return next((found for drawn in reversed(line.split("\r")) if (found := _read(drawn))), None)


def _read(line: str) -> Progress | None:
    for mark in _MARKS:
        if found := mark.pattern.search(line):
            percent = found.groupdict().get("percent")
            part = min(100, int(percent)) if percent else 0
            detail = f"{mark.detail} ({part} %)" if percent else mark.detail
            return Progress(mark.at + mark.span * part / 100, detail)
    return None


def together(pods: Sequence[Progress], wanted: int) -> Progress:
    """Of all copies: the average, and the words of the one that is least far."""
    if not pods:
        return Progress(0, "Waiting for the pods to be made")
    slowest = min(pods)
    ready = sum(found.percent >= READY.percent for found in pods)
    percent = sum(found.percent for found in sorted(pods, reverse=True)[:wanted]) / max(wanted, 1)
    detail = slowest.detail if wanted == 1 else f"{ready} of {wanted} copies serve; {slowest.detail.lower()}"
    return Progress(min(percent, 99), detail)
