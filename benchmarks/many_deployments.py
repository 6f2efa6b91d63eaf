"""Many deployments asked for at once on one cluster: how soon they are accepted, serve, and what that costs.

There are two hundred, or as many as the environment variable COPIES says.

For comparison the same releases by hand: as many `helm upgrade --install` at a time as the service runs tools, without
waiting for the pods.
"""

import asyncio
import os
import resource
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from benchmarks.deploy import MODEL, MODEL_CONFIG
from benchmarks.live_service import run_tool, service_in, succeeded
from benchmarks.measure import Table
from benchmarks.sandbox_cluster import sandbox_of
from benchmarks.scratch import scratch_folder
from budcluster.config import KubernetesSettings
from budcluster.deployment.helm_utils import CHART
from devstack.tools import ensure_tools, tool_environment

NAME = "many-deployments"

COPIES = int(os.environ.get("COPIES", "200"))
_AT_WORK = {"PENDING", "DEPLOYING"}


@dataclass(frozen=True)
class Taken:
    """What one way took for all of them, in seconds."""

    accepted_s: float
    done_s: float
    own_cpu_s: float
    """Of the service itself."""
    tools_cpu_s: float
    ended: Counter[str]


def run() -> list[Table]:
    ensure_tools()
    os.environ.update(tool_environment())
    with scratch_folder() as folder, sandbox_of(nodes=f"h100x8:{-(-COPIES // 8)}", clock_factor=20) as sandbox:
        service, values = asyncio.run(_with_the_service(folder, sandbox.kubeconfig.read_text()))
        by_hand = _by_hand(values, sandbox.kubeconfig)
    rows = [_row("service", service), _row("helm by hand", by_hand)]
    columns = ("way", "accepted s", "done s", "own CPU s", "tools' CPU s", "CPU ms each", "ended")
    return [Table(f"{COPIES} deployments at once", columns, rows)]


def _row(way: str, taken: Taken) -> tuple[str, ...]:
    figures = (taken.accepted_s, taken.done_s, taken.own_cpu_s, taken.tools_cpu_s)
    each = 1000 * (taken.own_cpu_s + taken.tools_cpu_s) / COPIES
    ended = ", ".join(f"{count} {status}" for status, count in taken.ended.items())
    return (way, *(f"{figure:.1f}" for figure in figures), f"{each:.0f}", ended)


async def _with_the_service(folder: Path, kubeconfig: str) -> tuple[Taken, dict[str, Any]]:
    async with service_in(folder) as client:
        wanted = {"cluster_id": await _onboard(client, kubeconfig), "model": MODEL}
        wanted["config"] = {"model_config": MODEL_CONFIG}
        began, own, tools = time.perf_counter(), time.process_time(), _tools_cpu_s()
        await asyncio.gather(*(_ask(client, wanted) for _ in range(COPIES)))
        accepted_s = time.perf_counter() - began
        while _AT_WORK & set(statuses := await _statuses(client)):  # noqa: ASYNC110 - the service is asked
            await asyncio.sleep(1)
        taken = Taken(
            accepted_s, time.perf_counter() - began, time.process_time() - own, _tools_cpu_s() - tools, statuses
        )
        preview = (await client.post("/deployments", params={"dry_run": True}, json=wanted)).json()
        return taken, preview["values"]


async def _onboard(client: httpx.AsyncClient, kubeconfig: str) -> str:
    cluster = (await client.post("/clusters", json={"name": "bench", "provider": "ON_PREMISES"})).json()
    body = {"kubeconfig": kubeconfig, "gpu_sharing": "none"}
    begun = (await client.post(f"/clusters/{cluster['id']}/onboard", json=body)).json()
    await succeeded(client, begun["operation_id"])
    return str(cluster["id"])


async def _ask(client: httpx.AsyncClient, wanted: dict[str, Any]) -> None:
    """Ask for one deployment; comes again when the service says that it has too much to do."""
    while (answer := await client.post("/deployments", json=wanted)).status_code == 503:  # noqa: ASYNC110 - as above
        await asyncio.sleep(1)
    answer.raise_for_status()


async def _statuses(client: httpx.AsyncClient) -> Counter[str]:
    items = (await client.get("/deployments", params={"limit": 500})).json()["items"]
    return Counter(item["status"] for item in items)


def _by_hand(values: dict[str, Any], kubeconfig: Path) -> Taken:
    def install(number: int) -> None:
        place = ("--namespace", "by-hand", "--create-namespace", "--kubeconfig", str(kubeconfig))
        run_tool(
            ("helm", "upgrade", f"bench-{number}", str(CHART), "--install", "--values", "-", *place),
            stdin=orjson.dumps(values),
        )

    began, tools = time.perf_counter(), _tools_cpu_s()
    with ThreadPoolExecutor(KubernetesSettings().max_tools) as pool:
        list(pool.map(install, range(COPIES)))
    took = time.perf_counter() - began
    return Taken(0, took, 0, _tools_cpu_s() - tools, Counter({"installed": COPIES}))


def _tools_cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
