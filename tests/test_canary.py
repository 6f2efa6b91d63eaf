"""Planted secrets are found nowhere but in the vault.

A feature that takes secrets adds to `PLANTS` how one is planted through its public routes; a feature that writes
somewhere new adds that place to `tests.fixtures.canary.SINKS`.
"""

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import select

from budcluster.bootstrap import Service
from budcluster.credentials.models import Credential, CredentialPurpose
from budcluster.credentials.services import CredentialService
from tests.fixtures.canary import World, forms, found_nowhere
from tests.kube.certificates import make_document


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


async def test_a_planted_secret_is_found_nowhere(
    log_lines: list[str], client: httpx.AsyncClient, service: Service
) -> None:
    world = World(client, service, log_lines)
    for plant in PLANTS:
        await plant(world)
    assert {
        "credentials.secret",
        "idempotency_keys.body",
        "audit_events.facts",
        "operations.payload",
        "log",
    } <= await found_nowhere(world)


async def test_the_search_finds_what_is_hidden_in_any_form() -> None:
    for hidden in (b"canary-secret", base64.b64encode(b"x: canary-secret"), b"canary-secret".hex().encode()):
        assert any(form in b"... " + hidden + b" ..." for form in forms("canary-secret"))
