"""Commands that work on the database and key files of this machine, as processes of their own."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from budcluster.audit.models import AuditEvent
from budcluster.credentials.keys import RSA_NAME, SYMMETRIC_NAME
from budcluster.kit.database import Database

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


Run = Callable[..., Awaitable[Ended]]


@pytest.fixture
def run(key_folder: Path) -> Run:
    async def run(*arguments: str, **environment: str) -> Ended:
        own = {
            "RSA_PRIVATE_KEY_PATH": str(key_folder / RSA_NAME),
            "SYMMETRIC_KEY_PATH": str(key_folder / SYMMETRIC_NAME),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "budcluster", *arguments),
            cwd=Path(__file__).parents[2],
            env={**os.environ, **own, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate()
        assert process.returncode is not None
        assert "Traceback" not in errors.decode()
        return Ended(process.returncode, out.decode(), errors.decode())

    return run


async def test_the_first_token_is_made_on_an_empty_database(run: Run, empty_database_url: str) -> None:
    untouched = await run("tokens", "list", DATABASE_URL=empty_database_url)
    assert (untouched.code, untouched.stdout) == (1, "")
    assert "run `budcluster migrate`" in untouched.stderr
    made = await run("tokens", "create", "ops", "--json", DATABASE_URL=empty_database_url)
    assert made.code == 0, made.stderr
    text = json.loads(made.stdout)["token"]
    assert text.startswith("bud_")
    listed = await run("tokens", "list", "--json", DATABASE_URL=empty_database_url)
    assert [token["name"] for token in json.loads(listed.stdout)] == ["ops"]
    assert text not in listed.stdout


async def test_making_and_revoking_tokens_is_audited(run: Run, database_url: str, database: Database) -> None:
    assert (await run("tokens", "create", "ci", "--role", "view", DATABASE_URL=database_url)).code == 0
    assert (await run("tokens", "revoke", "ci", DATABASE_URL=database_url)).code == 0
    async with database.reading() as session:
        events = (await session.execute(select(AuditEvent.action, AuditEvent.subject_name))).all()
    assert sorted(map(tuple, events)) == [("token.created", "ci"), ("token.revoked", "ci")]


async def test_a_token_that_cannot_be_made_is_one_sentence_with_code_1(run: Run, database_url: str) -> None:
    ended = await run("tokens", "create", "x" * 64, DATABASE_URL=database_url)
    assert (ended.code, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert "1 to 63 letters" in ended.stderr


async def test_keys_are_rotated_with_nothing_but_json_on_standard_output(run: Run, database_url: str) -> None:
    before = json.loads((await run("keys", "status", "--json", DATABASE_URL=database_url)).stdout)
    rotated = await run("keys", "rotate", "--json", DATABASE_URL=database_url)
    assert rotated.code == 0, rotated.stderr
    facts = json.loads(rotated.stdout)
    assert facts["is_complete"] is True
    assert facts["key"] != before["current"]


async def test_a_database_that_is_away_is_one_sentence_without_its_password(run: Run) -> None:
    away = "postgresql://budcluster:hunter2secret@127.0.0.1:1/budcluster_db"
    for ended in await asyncio.gather(run("migrate", DATABASE_URL=away), run("tokens", "list", DATABASE_URL=away)):
        assert (ended.code, ended.stdout) == (1, "")
        assert ended.stderr.count("\n") == 1
        assert "cannot reach its database" in ended.stderr
        assert "hunter2secret" not in ended.stderr


async def test_wrong_settings_are_code_2_with_a_sentence_each(run: Run) -> None:
    ended = await run("migrate", DATABASE_URL="nonsense", PORT="0")
    assert ended.code == 2
    assert [line.split(" is wrong")[0] for line in ended.stderr.splitlines()] == [
        "budcluster: DATABASE_URL",
        "budcluster: PORT",
    ]
