"""The embedded PostgreSQL of development machines."""

from pathlib import Path

import asyncpg
import pytest

from devstack.postgres import EmbeddedPostgres, PostgresUnavailable


async def test_data_is_still_there_when_the_server_was_stopped_and_started_again(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "a path with blanks")
    server.start()
    connection = await asyncpg.connect(server.url("postgres"))
    await connection.execute("create table kept (id int)")
    await connection.close()
    server.stop()
    assert server.pid() is None
    server.start()
    connection = await asyncpg.connect(server.url("postgres"))
    assert await connection.fetchval("select count(*) from kept") == 0
    await connection.close()
    server.stop()


async def test_a_connection_without_the_password_is_refused(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            host=str(postgres.socket_folder), user="budcluster", password="wrong", database="postgres"
        )


def test_the_socket_and_the_password_are_for_the_owner_only(postgres: EmbeddedPostgres) -> None:
    assert postgres.socket_folder.stat().st_mode & 0o077 == 0
    assert (postgres.state / "postgres-password").stat().st_mode & 0o077 == 0
    assert postgres.data.stat().st_mode & 0o077 == 0


def test_a_running_server_is_adopted_by_a_second_start(postgres: EmbeddedPostgres) -> None:
    before = postgres.pid()
    EmbeddedPostgres(postgres.state).start()
    assert before is not None
    assert postgres.pid() == before


def test_a_state_path_too_long_for_a_socket_gets_a_short_private_folder(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / ("long" * 30))
    server.state.mkdir()
    assert len(str(server.socket_folder)) < 90
    assert server.socket_folder.stat().st_mode & 0o077 == 0


def test_the_reason_is_named_when_no_server_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_BINDIR", str(tmp_path))
    with pytest.raises(PostgresUnavailable, match="PG_BINDIR"):
        EmbeddedPostgres(tmp_path / "state").start()
