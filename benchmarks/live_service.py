"""The whole service on a database of its own, asked as a user asks it; and tools run by hand to compare it with."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from budcluster.app import create_app
from budcluster.bootstrap import make_service
from budcluster.config import PROJECT_ROOT, Settings
from budcluster.credentials.keys import RSA_NAME, SYMMETRIC_NAME, make_key_files
from devstack.postgres import EmbeddedPostgres
from devstack.tools import tools_home
from sandbox.kubernetes.server import KubernetesServer

CHARTS = PROJECT_ROOT / "deploy" / "sandbox" / "charts"
PLAYBOOKS = PROJECT_ROOT / "playbooks"


@asynccontextmanager
async def service_in(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that is ready."""
    async with database_in(folder) as url:
        service = make_service(settings_for(url, folder))
        app = create_app(service.edge.settings, service)
        async with app.router.lifespan_context(app):
            await service.readiness.started.wait()
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
                yield client


@asynccontextmanager
async def database_in(folder: Path) -> AsyncIterator[str]:
    """URL of an empty database on a server of its own."""
    postgres = EmbeddedPostgres(folder / "state", durable=False)
    postgres.start()
    try:
        admin = await asyncpg.connect(postgres.url("postgres"))
        await admin.execute("create database budcluster_db")
        await admin.close()
        yield postgres.url("budcluster_db")
    finally:
        postgres.stop()


def settings_for(database_url: str, folder: Path) -> Settings:
    """Settings on this database, with new key files in the folder."""
    keys = folder / "keys"
    make_key_files(keys)
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


async def onboard(client: httpx.AsyncClient, server: KubernetesServer) -> str:
    """Id of the cluster, once it is READY."""
    cluster = (await client.post("/clusters", json={"name": "bench", "provider": "ON_PREMISES"})).json()
    path = f"/clusters/{cluster['id']}/onboard"
    begun = (await client.post(path, json={"kubeconfig": server.kubeconfig()})).json()
    await succeeded(client, begun["operation_id"])
    return str(cluster["id"])


async def succeeded(client: httpx.AsyncClient, operation_id: str) -> dict[str, Any]:
    """The operation, once it has ended well. Raises RuntimeError."""
    while True:
        operation: dict[str, Any] = (await client.get(f"/operations/{operation_id}")).json()
        if operation["finished_at"]:
            break
        await asyncio.sleep(0.05)
    if operation["status"] != "SUCCEEDED":
        raise RuntimeError(f"{operation['kind']} ended {operation['status']}: {operation['error']}")
    return operation


def run_tool(argv: Sequence[str], *, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> None:
    """Run a tool by hand. Raises RuntimeError with its last words."""
    done = subprocess.run(
        argv, input=stdin, env={**os.environ, **(environment or {})}, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} failed: {done.stdout[-1000:].decode()} {done.stderr[-1000:].decode()}")
