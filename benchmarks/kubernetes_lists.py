"""Listing the nodes of a large cluster by client; starting the sandbox, small and large."""

import asyncio
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import orjson
import yaml
from kubernetes import client, config
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config

from benchmarks.measure import Table, Timing, timed, timed_async
from benchmarks.sandbox_cluster import SandboxProcess, sandbox_of
from devstack.tools import ensure_tools, tool_environment

NAME = "kubernetes-lists"

NODES = 5000
ROUNDS = 3
REFERENCE = "httpx + orjson"
METADATA_ONLY = {"accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}


def run() -> list[Table]:
    ensure_tools()
    with sandbox_of(nodes="cpu:3") as small:
        starts = [_start_row(3, small)]
    with sandbox_of(nodes=f"cpu:{NODES}") as large:
        starts.append(_start_row(NODES, large))
        timings = _synchronous(large.kubeconfig) | asyncio.run(
            _asynchronous(yaml.safe_load(large.kubeconfig.read_text()))
        )
    reference = timings[REFERENCE]
    rows = [_row(name, timing, reference) for name, timing in timings.items()]
    columns = ("client", "wall ms", "CPU ms", "wall ratio", "CPU ratio")
    return [
        Table(f"Listing {NODES:,} nodes over TLS on loopback (median of {ROUNDS})", columns, rows),
        Table("Starting the sandbox Kubernetes", ("nodes", "seconds until it answers", "resident MiB"), starts),
    ]


def _start_row(nodes: int, started: SandboxProcess) -> tuple[str, str, str]:
    return f"{nodes:,}", f"{started.start_s:.2f}", f"{started.resident_mib():.0f}"


def _row(name: str, timing: Timing, reference: Timing) -> tuple[str, ...]:
    return (
        name,
        f"{timing.wall_ms:,.0f}",
        f"{timing.cpu_ms:,.0f}",
        f"{timing.wall_ms / reference.wall_ms:.1f}",
        f"{timing.cpu_ms / reference.cpu_ms:.1f}",
    )


def _synchronous(kubeconfig: Path) -> dict[str, Timing]:
    api = config.new_client_from_config(str(kubeconfig))
    core = client.CoreV1Api(api)
    environment = {**os.environ, **tool_environment(), "KUBECONFIG": str(kubeconfig)}

    def kubectl() -> None:
        subprocess.run(["kubectl", "get", "nodes"], env=environment, stdout=subprocess.DEVNULL, check=True)

    with api:
        return {
            "kubernetes, typed": timed(core.list_node, rounds=ROUNDS),
            "kubernetes, raw + orjson": timed(
                lambda: orjson.loads(core.list_node(_preload_content=False).data), rounds=ROUNDS
            ),
            "kubectl get nodes (a process, Table)": timed(kubectl, rounds=ROUNDS),
        }


async def _asynchronous(configuration: dict[str, Any]) -> dict[str, Timing]:
    async with await aio_config.new_client_from_config_dict(configuration) as api:
        core = aio_client.CoreV1Api(api)

        async def raw() -> None:
            response = await core.list_node(_preload_content=False)
            orjson.loads(await response.read())

        timings = {
            "kubernetes.aio, typed": await timed_async(core.list_node, rounds=ROUNDS),
            "kubernetes.aio, raw + orjson": await timed_async(raw, rounds=ROUNDS),
        }
        trust = api.configuration.ssl_ca_cert
        headers = {"authorization": await api.configuration.get_api_key_with_prefix("BearerToken") or ""}
        host = api.configuration.host
        async with httpx.AsyncClient(
            base_url=host, verify=ssl.create_default_context(cafile=trust), headers=headers
        ) as bare:

            async def whole() -> None:
                orjson.loads((await bare.get("/api/v1/nodes")).content)

            async def metadata() -> None:
                orjson.loads((await bare.get("/api/v1/nodes", headers=METADATA_ONLY)).content)

            timings[REFERENCE] = await timed_async(whole, rounds=ROUNDS)
            timings["httpx + orjson, metadata only"] = await timed_async(metadata, rounds=ROUNDS)
    return timings
