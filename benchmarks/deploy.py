"""What the service adds to a deployment: against `helm upgrade --install --wait` of the same chart and values, by hand.

One machine without GPUs, clock factor 1, a model whose start takes about a minute. Both times the image is absent from
the node. The service's time ends with the answer to its first prompt, which Helm does not ask.
"""

import asyncio
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from benchmarks.live_service import onboard, run_tool, service_in, succeeded
from benchmarks.measure import Table
from benchmarks.scratch import scratch_folder
from budcluster.deployment.helm_utils import CHART
from devstack.tools import ensure_tools, tool_environment
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer
from sandbox.kubernetes.simulation.simulation import Simulation

NAME = "deploy"

MODEL = "Qwen/Qwen3-0.6B"
MODEL_CONFIG = {
    "num_hidden_layers": 28, "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 40960, "vocab_size": 151_936, "intermediate_size": 3072,
}  # fmt: skip


def run() -> list[Table]:
    ensure_tools()
    os.environ.update(tool_environment())
    with scratch_folder() as folder, KubernetesServer(Options(nodes="cpu-amx:1", clock_factor=1)) as server:
        by_hand, serviced, steps = asyncio.run(_compare(server, folder))
    ways = [("helm by hand", f"{by_hand:.1f}", "1.00"), ("service", f"{serviced:.1f}", f"{serviced / by_hand:.2f}")]
    return [
        Table(f"Deploying {MODEL} at clock factor 1", ("way", "seconds", "ratio"), ways),
        Table("Steps of the service", ("step", "seconds"), steps),
    ]


async def _compare(server: KubernetesServer, folder: Path) -> tuple[float, float, list[tuple[str, str]]]:
    async with service_in(folder) as client:
        wanted = {
            "cluster_id": await onboard(client, server),
            "name": "bench",
            "model": MODEL,
            "config": {"model_config": MODEL_CONFIG},
        }
        preview = (await client.post("/deployments", params={"dry_run": True}, json=wanted)).json()
        by_hand = await asyncio.to_thread(_by_hand, server, folder, preview["values"])
        _forget_images(server)
        began = time.perf_counter()
        begun = (await client.post("/deployments", json=wanted)).json()
        operation = await succeeded(client, begun["operation_id"])
        return by_hand, time.perf_counter() - began, _steps(operation)


def _by_hand(server: KubernetesServer, folder: Path, values: dict[str, Any]) -> float:
    kubeconfig = server.write_kubeconfig(folder / "kubeconfig")
    place = ["--namespace", "by-hand", "--kubeconfig", str(kubeconfig), "--wait", "--timeout", "10m"]
    _forget_images(server)
    began = time.perf_counter()
    argv = ["helm", "upgrade", "bench", str(CHART), "--install", "--create-namespace", "--values", "-", *place]
    run_tool(argv, stdin=orjson.dumps(values))
    took = time.perf_counter() - began
    run_tool(["helm", "uninstall", "bench", *place])
    return took


def _forget_images(server: KubernetesServer) -> None:
    def forget() -> None:
        simulation = server.cluster.simulation
        if isinstance(simulation, Simulation):
            for machine in simulation.world.machines.values():
                machine.images.clear()

    server.call(forget)


def _steps(operation: dict[str, Any]) -> list[tuple[str, str]]:
    def took(step: dict[str, Any]) -> float:
        began, ended = (datetime.fromisoformat(step[name]) for name in ("started_at", "finished_at"))
        return (ended - began).total_seconds()

    return [(step["name"], f"{took(step):.1f}") for step in operation["steps"]]
