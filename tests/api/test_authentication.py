"""Who may do what, and how the service knows who somebody is."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select

from budcluster.api.authentication import is_loopback, listening_allowed
from budcluster.api.models import ApiToken, Role
from budcluster.api.tokens import (
    TokenNameTaken,
    TokenNotFound,
    create_token,
    is_well_formed,
    list_tokens,
    new_token,
    revoke_token,
)
from budcluster.bootstrap import Service, token_digest
from budcluster.config import Settings
from budcluster.kit.database import Database
from tests.api.test_problems import assert_problem
from tests.fixtures.app import SettingsMaker, client_of, quiet_service, running

LAB = {"name": "lab", "provider": "ON_PREMISES"}


class MovableClock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def service(settings: Settings, clock: MovableClock) -> Service:
    return quiet_service(settings, clock=clock)


async def make_token(
    database: Database, settings: Settings, name: str, role: Role = Role.MANAGE, expires_at: datetime | None = None
) -> dict[str, str]:
    async with database.writing() as session:
        _, text = await create_token(session, token_digest(settings), name=name, role=role, expires_at=expires_at)
    return {"Authorization": f"Bearer {text}"}


async def test_everything_but_health_and_documents_needs_a_token_once_one_exists(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    bearer = await make_token(database, settings, "ops")
    reply = await client.get("/clusters")
    assert_problem(reply, 401, "/problems/missing-credential")
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert_problem(await client.get("/nowhere"), 401, "/problems/missing-credential")
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/problems", "/problems/not-found"):
        assert (await client.get(path)).status_code == 200, path
    assert (await client.get("/clusters", headers=bearer)).status_code == 200
    assert (await client.post("/clusters", json=LAB, headers=bearer)).status_code == 201


async def test_a_token_that_only_views_changes_nothing(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    bearer = await make_token(database, settings, "dashboard", Role.VIEW)
    assert (await client.get("/clusters", headers=bearer)).status_code == 200
    assert_problem(await client.post("/clusters", json=LAB, headers=bearer), 403, "/problems/role-too-weak")
    assert_problem(await client.delete("/clusters", headers=bearer), 403, "/problems/role-too-weak")


async def test_a_token_ends_when_it_expires(
    client: httpx.AsyncClient, database: Database, settings: Settings, clock: MovableClock
) -> None:
    bearer = await make_token(database, settings, "guest", expires_at=clock.time + timedelta(hours=1))
    assert (await client.get("/clusters", headers=bearer)).status_code == 200
    clock.time += timedelta(hours=1)
    assert_problem(await client.get("/clusters", headers=bearer), 401, "/problems/invalid-token")


async def test_revoking_the_last_token_does_not_open_the_door(database: Database, settings: Settings) -> None:
    bearer = await make_token(database, settings, "ops")
    async with database.writing() as session:
        first = await revoke_token(session, name="ops")
        again = await revoke_token(session, name="ops")
    assert first.revoked_at == again.revoked_at
    async with running(quiet_service(settings)) as app, client_of(app) as client:
        assert_problem(await client.get("/clusters", headers=bearer), 401, "/problems/invalid-token")
        assert_problem(await client.get("/clusters"), 401, "/problems/missing-credential")


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Bearer bud_short", "Basic dXNlcjpwYXNz", "bud_x", f"Bearer {new_token()}"],
    ids=["no token", "a blank", "too short", "another scheme", "no scheme", "unknown"],
)
async def test_a_header_that_is_no_valid_token_is_refused(
    client: httpx.AsyncClient, database: Database, settings: Settings, header: str
) -> None:
    await make_token(database, settings, "ops")
    reply = await client.get("/clusters", headers={"Authorization": header})
    assert reply.status_code == 401
    assert reply.headers["Content-Type"] == "application/problem+json"


async def test_a_use_is_written_down_off_the_path_of_the_request(
    client: httpx.AsyncClient, database: Database, settings: Settings, service: Service, clock: MovableClock
) -> None:
    bearer = await make_token(database, settings, "ops")
    await client.get("/clusters", headers=bearer)
    await service.authenticator.write_down_usage()
    async with database.reading() as session:
        assert (await session.scalars(select(ApiToken.last_used_at))).one() == clock.time


async def test_the_table_holds_no_token(database: Database, settings: Settings) -> None:
    text = (await make_token(database, settings, "ops"))["Authorization"].removeprefix("Bearer ")
    async with database.reading() as session:
        (token,) = await list_tokens(session)
    assert text.encode() not in token.digest
    assert len(token.digest) == 32


async def test_a_name_is_used_for_one_token_only(database: Database, settings: Settings) -> None:
    await make_token(database, settings, "ops")
    with pytest.raises(TokenNameTaken):
        await make_token(database, settings, "ops")
    async with database.writing() as session:
        with pytest.raises(TokenNotFound):
            await revoke_token(session, name="nobody")


def test_a_mistyped_token_is_told_apart_without_the_database() -> None:
    token = new_token()
    assert is_well_formed(token)
    assert not any(
        is_well_formed(wrong)
        for wrong in (token[:-1], token + "a", token[:10] + "!" + token[11:], token.swapcase(), "")
    )


@pytest.fixture
async def dapr_client(make_settings: SettingsMaker) -> AsyncIterator[httpx.AsyncClient]:
    service = quiet_service(make_settings(app_api_token="the-sidecar-token"))
    async with running(service) as app, client_of(app) as client:
        yield client


async def test_a_sidecar_proves_itself_and_names_the_calling_app(
    dapr_client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {"dapr-api-token": "the-sidecar-token", "dapr-caller-app-id": "bud-serve"}
    assert (await dapr_client.post("/clusters", json=LAB, headers=headers)).status_code == 201
    assert "app:bud-serve" in capsys.readouterr().out


@pytest.mark.parametrize("headers", [{}, {"dapr-api-token": "wrong"}, {"dapr-api-token": ""}, {"dapr-api-token": "ü"}])
async def test_a_call_without_the_sidecars_token_is_refused(
    dapr_client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    reply = await dapr_client.get("/clusters", headers=encoded)
    assert reply.status_code == 401


async def test_a_service_that_others_can_reach_serves_nobody_unknown(make_settings: SettingsMaker) -> None:
    async with running(quiet_service(make_settings(host="0.0.0.0"))) as app, client_of(app) as client:
        assert_problem(await client.get("/clusters"), 401, "/problems/missing-credential")


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:9082", 200), ("LOCALHOST", 200), ("[::1]:9082", 200), ("evil.example", 401), ("[::1", 401), ("", 401)],
)
async def test_a_foreign_name_is_refused_while_nobody_needs_a_token(
    shared_client: httpx.AsyncClient, host: str, status: int
) -> None:
    assert (await shared_client.get("/clusters", headers={"Host": host})).status_code == status


def test_listening_beyond_loopback_needs_a_credential_or_an_explicit_wish() -> None:
    for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"):
        assert is_loopback(host)
        assert listening_allowed(host, has_credentials=False, anonymous_remote=False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        assert not is_loopback(host)
        assert not listening_allowed(host, has_credentials=False, anonymous_remote=False)
        assert listening_allowed(host, has_credentials=True, anonymous_remote=False)
        assert listening_allowed(host, has_credentials=False, anonymous_remote=True)
