"""Measures any workflow engine with a tiny workflow (one activity). Runs in environments without budcluster."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

WARM_UP = 50
SEQUENTIAL = 200
PARALLEL = 600
CLIENTS = 6
"""The in-memory engine serves ten calls at once and a waiting client holds one of them."""


def measure(run_one: Callable[[], None]) -> dict[str, float]:
    """Latency one after the other, then throughput with several clients; `run_one` starts one and waits for its end."""
    for _ in range(WARM_UP):
        run_one()
    taken = []
    for _ in range(SEQUENTIAL):
        began = time.perf_counter()
        run_one()
        taken.append((time.perf_counter() - began) * 1000)
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda _: run_one(), range(PARALLEL)))
    per_second = PARALLEL / (time.perf_counter() - began)
    return {"p50_ms": statistics.median(taken), "p95_ms": statistics.quantiles(taken, n=20)[-1], "per_s": per_second}


def report(figures: dict[str, float]) -> None:
    """Hand the figures to whoever started this process."""
    sys.stdout.write("figures " + json.dumps(figures) + "\n")
    sys.stdout.flush()
