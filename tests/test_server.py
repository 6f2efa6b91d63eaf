"""A real process: it starts, says where it listens, ends on a signal, and refuses in one sentence what it cannot do."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from budcluster.api.models import Role
from budcluster.api.tokens import create_token
from budcluster.bootstrap import token_digest
from budcluster.config import Settings
from budcluster.kit.database import Database

SERVE = "import sys; from budcluster.config import Settings; from budcluster.server import serve; "
SERVE += "sys.exit(serve(Settings.load()))"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    processes = []

    def begin(**environment: str) -> "subprocess.Popen[str]":
        own = {
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "RSA_PRIVATE_KEY_PATH": str(settings.rsa_private_key_path),
            "SYMMETRIC_KEY_PATH": str(settings.symmetric_key_path),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            cwd=Path(__file__).parents[1],
            env={**os.environ, **own, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


async def until_ready(port: int) -> None:
    deadline = time.monotonic() + 60
    async with httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_service_in_order(start: Start, port: int, ending: signal.Signals) -> None:
    process = start(PORT=str(port))
    await until_ready(port)
    process.send_signal(ending)
    _, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    events = [json.loads(line) for line in errors.splitlines()]
    assert {"service.listening", "service.started"} <= {event["event"] for event in events}
    assert "Traceback" not in errors


@pytest.mark.slow
async def test_a_taken_port_is_named(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = start(PORT=str(port))
        _, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 2
    assert errors == f"budcluster: port {port} on 127.0.0.1 is taken; choose another one with PORT.\n"


@pytest.mark.slow
async def test_other_machines_are_refused_until_a_token_exists(
    start: Start, port: int, database: Database, settings: Settings
) -> None:
    process = start(HOST="0.0.0.0", PORT=str(port))
    _, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 2
    assert errors.startswith("budcluster: HOST is 0.0.0.0")
    assert "Traceback" not in errors
    async with database.writing() as session:
        await create_token(session, token_digest(settings), name="ops", role=Role.MANAGE)
    start(HOST="0.0.0.0", PORT=str(port))
    await until_ready(port)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/clusters")).status_code == 401
