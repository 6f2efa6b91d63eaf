"""Planted secrets are found nowhere but in the vault.

A feature that takes secrets adds to `PLANTS` how one is planted through its public routes; a feature that writes
somewhere new adds that place to `SINKS`.
"""

import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import structlog
from sqlalchemy import select, text

from budcluster.bootstrap import Service
from budcluster.credentials.models import Credential, CredentialPurpose
from budcluster.credentials.services import CredentialService
from budcluster.tables import METADATA
from tests.kube.certificates import make_document


@dataclass
class World:
    """Where secrets are planted, and all that came out of it."""

    client: httpx.AsyncClient
    service: Service
    log_lines: list[str]
    planted: list[str] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=list)
    objects: list[object] = field(default_factory=list)

    def canary(self, prefix: str = "") -> str:
        """A secret that occurs nowhere by chance."""
        secret = f"{prefix}canary{uuid4().hex}"
        self.planted.append(secret)
        return secret

    async def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Send a body twice with one idempotency key; both answers are searched."""
        headers = {"Idempotency-Key": uuid4().hex}
        for _ in range(2):
            self.answers.append(await self.client.post(path, json=body, headers=headers))
        return self.answers[-1]


async def plant_credentials(world: World) -> None:
    secrets: dict[str, dict[str, Any]] = {
        "AWS": {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": world.canary()},
        "AZURE": {
            **{name: str(uuid4()) for name in ("tenant_id", "client_id", "subscription_id")},
            "client_secret": world.canary(),
        },
        "HUGGING_FACE": {"token": world.canary("hf_")},
        "REGISTRY": {"server": "ghcr.io", "username": world.canary(), "password": world.canary()},
    }
    service = world.service.edge.service(CredentialService)
    for purpose, secret in secrets.items():
        name = purpose.lower().replace("_", "-")
        made = await world.post("/credentials", {"purpose": purpose, "name": name, "secret": secret})
        assert made.status_code == 201, made.text
        identity = UUID(made.json()["id"])
        opened = await service.open_(identity, purpose=CredentialPurpose(purpose), operation="canary")
        assert json.loads(opened.reveal()) == secret
        async with world.service.edge.database.reading() as session:
            row = (await session.scalars(select(Credential).where(Credential.id == identity))).one()
        world.objects += [opened, row, row.secret, row.__dict__, world.service, vars(service)]


async def plant_in_refused_requests(world: World) -> None:
    secret = world.canary()
    for body in (
        {"purpose": "AWS", "name": "x", "secret": {"secret_access_key": secret + "\n"}},
        {
            "purpose": "REGISTRY",
            "name": secret.upper(),
            "secret": {"server": secret + " ", "password": [secret]},
        },
        {"purpose": secret, "name": "x", "secret": secret},
    ):
        refused = await world.post("/credentials", body)
        assert refused.status_code == 422


async def plant_kubeconfigs(world: World) -> None:
    made = await world.client.post("/clusters", json={"name": "canary", "provider": "ON_PREMISES"})
    path = f"/clusters/{made.json()['id']}/onboard"
    for user in ({"token": world.canary()}, {"token": world.canary() + "\n"}, {"password": world.canary()}):
        await world.post(path, {"kubeconfig": json.dumps(make_document(user=user))})
    await world.post(path, {"kubeconfig": f"users: [{world.canary()}"})
    accepted, *refused = (answer.status_code for answer in world.answers[-8::2])
    assert (accepted, refused) == (202, [422, 422, 422])
    async with world.service.edge.database.reading() as session:
        kept = select(Credential).where(Credential.purpose == CredentialPurpose.ONBOARDING)
        row = (await session.scalars(kept)).one()
    world.objects += [row, row.secret, row.__dict__]


PLANTS: list[Callable[[World], Awaitable[None]]] = [plant_credentials, plant_in_refused_requests, plant_kubeconfigs]


async def every_row(world: World) -> AsyncIterator[tuple[str, bytes]]:
    async with world.service.edge.database.reading() as session:
        names = (await session.scalars(text("select tablename from pg_tables where schemaname = 'public'"))).all()
        assert METADATA.tables.keys() <= set(names)
        for name in names:
            for row in (await session.execute(text(f'select * from "{name}"'))).mappings():
                for column, value in row.items():
                    yield f"{name}.{column}", value if isinstance(value, bytes) else str(value).encode()


async def every_log_line(world: World) -> AsyncIterator[tuple[str, bytes]]:
    for line in world.log_lines:
        yield "log", line.encode()


async def every_answer(world: World) -> AsyncIterator[tuple[str, bytes]]:
    listed = [await world.client.get(path) for path in ("/credentials", "/audit", "/clusters", "/operations")]
    for answer in [*world.answers, *listed]:
        yield f"answer of {answer.url.path}", str(answer.headers).encode() + answer.content


async def every_representation(world: World) -> AsyncIterator[tuple[str, bytes]]:
    for thing in world.objects:
        yield f"repr of {type(thing).__name__}", f"{thing!r} {thing}".encode()


SINKS: list[Callable[[World], AsyncIterator[tuple[str, bytes]]]] = [
    every_row,
    every_log_line,
    every_answer,
    every_representation,
]


def forms(secret: str) -> list[bytes]:
    """The secret as it is, in hexadecimal, and inside base64 at each of its three alignments."""
    raw = secret.encode()
    shifted = [base64.b64encode(bytes(shift) + raw)[4 : len(raw) // 3 * 4] for shift in range(3)]
    return [raw, raw.hex().encode(), *shifted]


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Everything that is logged while the test runs, at DEBUG, unmasked: the masks are the second line of defence."""
    lines: list[str] = []
    before = structlog.get_config()

    def keep(_: object, __: str, event: Any) -> Any:
        lines.append(repr(event))
        raise structlog.DropEvent

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    caplog.set_level(logging.DEBUG)
    handler = Keep()
    logging.getLogger().addHandler(handler)
    yield lines
    logging.getLogger().removeHandler(handler)
    structlog.configure(**before)


async def test_a_planted_secret_is_found_nowhere(
    log_lines: list[str], client: httpx.AsyncClient, service: Service
) -> None:
    world = World(client, service, log_lines)
    for plant in PLANTS:
        await plant(world)
    assert world.planted
    needles = [form for secret in world.planted for form in forms(secret)]
    searched: set[str] = set()
    for sink in SINKS:
        async for place, content in sink(world):
            searched.add(place)
            assert not [needle for needle in needles if needle in content], place
    assert {
        "credentials.secret",
        "idempotency_keys.body",
        "audit_events.facts",
        "operations.payload",
        "log",
    } <= searched


async def test_the_search_finds_what_is_hidden_in_any_form() -> None:
    for hidden in (b"canary-secret", base64.b64encode(b"x: canary-secret"), b"canary-secret".hex().encode()):
        assert any(form in b"... " + hidden + b" ..." for form in forms("canary-secret"))
