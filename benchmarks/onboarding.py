"""What the service adds to onboarding: against the same playbooks and Helm commands, run by hand one after the other.

Two machines without GPUs, clock factor 1: a GPU operator spends five minutes on its drivers, which would hide what the
service itself costs.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson

from benchmarks.measure import Table
from budcluster.app import create_app
from budcluster.bootstrap import make_service
from budcluster.config import PROJECT_ROOT, AddonSettings, Settings
from budcluster.credentials.keys import RSA_NAME, SYMMETRIC_NAME, make_key_files
from budcluster.hardware import nfd, prometheus
from budcluster.hardware.addons import Platform, Surroundings
from budcluster.kube.versions import Version
from devstack.postgres import EmbeddedPostgres
from devstack.tools import ensure_tools, tool_environment, tools_home
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.server import KubernetesServer

NAME = "onboarding"

NODES = "cpu-amx:2"
CHARTS = PROJECT_ROOT / "deploy" / "sandbox" / "charts"
PLAYBOOKS = PROJECT_ROOT / "playbooks"


def run() -> list[Table]:
    ensure_tools()
    os.environ.update(tool_environment())
    with tempfile.TemporaryDirectory(prefix="budcluster-bench-") as folder:
        # PostgreSQL's unprivileged user must be able to enter.
        Path(folder).chmod(0o711)
        with _cluster() as server:
            by_hand = _by_hand(server, Path(folder))
        with _cluster() as server:
            serviced = asyncio.run(_by_service(server, Path(folder)))
    rows = [("by hand", f"{by_hand:.1f}", "1.00"), ("service", f"{serviced:.1f}", f"{serviced / by_hand:.2f}")]
    return [Table(f"Onboarding {NODES} at clock factor 1", ("way", "seconds", "ratio"), rows)]


@contextmanager
def _cluster() -> Iterator[KubernetesServer]:
    with KubernetesServer(Options(nodes=NODES, clock_factor=1)) as server:
        yield server


def _by_hand(server: KubernetesServer, folder: Path) -> float:
    kubeconfig = server.write_kubeconfig(folder / "kubeconfig")
    about = Surroundings(platform=Platform.OTHER, server=Version.parse(server.cluster.version))
    claim = {"cluster": "by-hand", "name": "by-hand"}
    prepare = {"system_namespace": "budcluster-system", "manage_addons": True, "oldest_minor": 25, "claim": claim}
    began = time.perf_counter()
    _play("onboard.yml", prepare, kubeconfig)
    for addon in (prometheus.addon(AddonSettings()), nfd.addon(AddonSettings())):
        if addon.name == "nfd":
            _play("install_nfd.yml", {"namespace": addon.namespace}, kubeconfig)
        argv = [
            "helm",
            "upgrade",
            addon.release,
            str(CHARTS / addon.chart),
            "--install",
            "--namespace",
            addon.namespace,
        ]
        options = ["--create-namespace", "--wait", "--values", "-", "--kubeconfig", str(kubeconfig)]
        _run([*argv, *options], stdin=orjson.dumps(addon.values(about)))
    return time.perf_counter() - began


def _play(playbook: str, variables: dict[str, Any], kubeconfig: Path) -> None:
    program = Path(sys.executable).parent / "ansible-playbook"
    python = f"ansible_python_interpreter={sys.executable}"
    places = {"K8S_AUTH_KUBECONFIG": str(kubeconfig), "ANSIBLE_COLLECTIONS_PATH": str(tools_home() / "collections")}
    argv = [str(program), str(PLAYBOOKS / playbook), "-e", python, "-e", orjson.dumps(variables).decode()]
    _run(argv, environment=places)


def _run(argv: list[str], *, stdin: bytes = b"", environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        argv, input=stdin, env={**os.environ, **(environment or {})}, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} failed: {done.stdout[-1000:].decode()} {done.stderr[-1000:].decode()}")


async def _by_service(server: KubernetesServer, folder: Path) -> float:
    keys = folder / "keys"
    make_key_files(keys)
    postgres = EmbeddedPostgres(folder / "state", durable=False)
    postgres.start()
    try:
        admin = await asyncpg.connect(postgres.url("postgres"))
        await admin.execute("create database budcluster_db")
        await admin.close()
        service = make_service(_settings(postgres.url("budcluster_db"), keys, folder))
        app = create_app(service.edge.settings, service)
        async with app.router.lifespan_context(app):
            await service.readiness.started.wait()
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
                return await _onboard(client, server)
    finally:
        postgres.stop()


def _settings(database_url: str, keys: Path, folder: Path) -> Settings:
    kubernetes = {
        "allow_local_servers": True,
        "workspace": str(folder / "tools"),
        "collections_path": str(tools_home() / "collections"),
    }
    return Settings.model_validate(
        {
            "database_url": database_url,
            "rsa_private_key_path": keys / RSA_NAME,
            "symmetric_key_path": keys / SYMMETRIC_NAME,
            "ansible_playbooks_path": PLAYBOOKS,
            "kubernetes": kubernetes,
            "addons": {"chart_mirror": str(CHARTS)},
        }
    )


async def _onboard(client: httpx.AsyncClient, server: KubernetesServer) -> float:
    began = time.perf_counter()
    cluster = (await client.post("/clusters", json={"name": "bench", "provider": "ON_PREMISES"})).json()
    path = f"/clusters/{cluster['id']}/onboard"
    begun = (await client.post(path, json={"kubeconfig": server.kubeconfig()})).json()
    while True:
        operation = (await client.get(f"/operations/{begun['operation_id']}")).json()
        if operation["finished_at"]:
            break
        await asyncio.sleep(0.05)
    if operation["status"] != "SUCCEEDED":
        raise RuntimeError(f"onboarding ended {operation['status']}: {operation['error']}")
    return time.perf_counter() - began
