"""The command line as a person types it, against the application on a loopback port."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from budcluster.bootstrap import Service
from budcluster.cli.app import app as commands
from budcluster.kit.database import Database
from tests.operations.desk import Desk, eventually


@dataclass
class CommandLine:
    """`budcluster` with the environment of its user."""

    environment: dict[str, str | None] = field(default_factory=dict)

    async def __call__(self, *arguments: str, **environment: str) -> Result:
        """Run a command to its end, beside the event loop that answers it."""
        given = {**self.environment, **environment}
        return await asyncio.to_thread(CliRunner().invoke, commands, arguments, env=given)

    async def json(self, *arguments: str) -> Any:
        """What a successful command prints with --json."""
        result = await self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def silent_service() -> Iterator[None]:
    """The service under test shares our standard output, which is the command's own here."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


@pytest.fixture
async def service_url(app: FastAPI, silent_service: None) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=2))
    task = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await eventually(started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


@pytest.fixture
def budcluster(service_url: str) -> CommandLine:
    return CommandLine({"BUDCLUSTER_URL": service_url, "BUDCLUSTER_TOKEN": None})


@pytest.fixture
def desk(service: Service, database: Database) -> Desk:
    return Desk(database, service.long_work.operations, service.long_work.journals)
