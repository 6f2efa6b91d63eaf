"""`/credentials` and `/audit` from outside."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from budcluster.bootstrap import Service
from budcluster.credentials.errors import CredentialExpired, CredentialUnfit
from budcluster.credentials.models import CredentialPurpose
from budcluster.credentials.services import CredentialService, UsageGuard, User
from budcluster.credentials.vault import Vault
from budcluster.kit.database import ReadSession

SECRETS: dict[str, dict[str, Any]] = {
    "AWS": {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
    "AZURE": {
        "tenant_id": "7f1b5c6e-0d0a-4bfb-9c1e-1f7a58a0a001",
        "client_id": "7f1b5c6e-0d0a-4bfb-9c1e-1f7a58a0a002",
        "client_secret": "azure-client-secret~1",
        "subscription_id": "7f1b5c6e-0d0a-4bfb-9c1e-1f7a58a0a003",
    },
    "HUGGING_FACE": {"token": "hf_abcdefghijklmnopqrstuvwxyz"},
    "REGISTRY": {"server": "ghcr.io:443", "username": "robot", "password": '{\n  "key": "p4ss"\n}'},
}


def credential(purpose: str, name: str = "mine", **changes: object) -> dict[str, object]:
    return {"purpose": purpose, "name": name, "secret": SECRETS[purpose], **changes}


@pytest.mark.parametrize("purpose", SECRETS)
async def test_a_secret_is_kept_told_of_opened_and_forgotten(
    client: httpx.AsyncClient, service: Service, purpose: str
) -> None:
    made = await client.post("/credentials", json=credential(purpose))
    assert made.status_code == 201, made.text
    found = await client.get(made.headers["Location"])
    assert found.json() == made.json()
    assert (found.json()["purpose"], found.json()["last_used_at"]) == (purpose, None)
    listed = await client.get(f"/credentials?purpose={purpose}&name=mine")
    assert listed.json()["items"] == [made.json()]
    for reply in (made, found, listed):
        assert "secret" not in reply.json()
        assert not [value for value in SECRETS[purpose].values() if value in reply.text]

    credentials = service.edge.service(CredentialService)
    identity = UUID(made.json()["id"])
    opened = await credentials.open_(identity, purpose=CredentialPurpose(purpose), operation="test")
    assert json.loads(opened.reveal()) == SECRETS[purpose]
    assert (await client.get(made.headers["Location"])).json()["last_used_at"] is not None

    stale = await client.delete(made.headers["Location"], headers={"If-Match": '"7"'})
    assert stale.status_code == 412
    assert (await client.delete(made.headers["Location"], headers={"If-Match": '"1"'})).status_code == 204
    assert (await client.delete(made.headers["Location"])).status_code == 404

    trail = (await client.get(f"/audit?subject_id={identity}&sort=at")).json()["items"]
    assert [event["action"] for event in trail] == ["credential.registered", "credential.opened", "credential.deleted"]
    assert [event["actor"] for event in trail] == ["anonymous", "system", "anonymous"]


BAD: list[tuple[str, dict[str, object], str]] = [
    ("AWS", {"access_key_id": "akia"}, "/secret/access_key_id"),
    ("AWS", {"secret_access_key": "has blanks in it, so no"}, "/secret/secret_access_key"),
    ("AWS", {"access_key_id": "ASIAIOSFODNN7EXAMPLE"}, "/secret"),
    ("AWS", {"role_arn": "arn:aws:iam::12:user/x"}, "/secret/role_arn"),
    ("AWS", {"external_id": "without-a-role"}, "/secret"),
    ("AZURE", {"tenant_id": "contoso"}, "/secret/tenant_id"),
    ("AZURE", {"client_secret": "ends with newline\n"}, "/secret/client_secret"),
    ("HUGGING_FACE", {"token": "sk-abcdefghijklmnopqrstuvwxyz"}, "/secret/token"),
    ("HUGGING_FACE", {"token": "hf_" + "x" * 300}, "/secret/token"),
    ("REGISTRY", {"server": "https://ghcr.io/x"}, "/secret/server"),
    ("REGISTRY", {"password": ""}, "/secret/password"),
    ("REGISTRY", {"password": "nul\0nul"}, ""),
    ("REGISTRY", {"unknown": "field"}, "/secret/unknown"),
]


@pytest.mark.parametrize(("purpose", "wrong", "pointer"), BAD, ids=[f"{b[0]}-{n}" for n, b in enumerate(BAD)])
async def test_a_secret_of_the_wrong_shape_is_refused_and_not_repeated(
    shared_client: httpx.AsyncClient, purpose: str, wrong: dict[str, object], pointer: str
) -> None:
    body = credential(purpose, secret=SECRETS[purpose] | wrong)
    reply = await shared_client.post("/credentials", json=body)
    assert reply.status_code == 422, reply.text
    assert reply.json()["errors"][0]["pointer"].endswith(pointer)
    assert not [value for value in wrong.values() if value and str(value) in reply.text]


async def test_purposes_of_the_service_itself_cannot_be_registered(shared_client: httpx.AsyncClient) -> None:
    for purpose in ("ONBOARDING", "hf_not-a-purpose", None):
        reply = await shared_client.post("/credentials", json={"purpose": purpose, "name": "x", "secret": {}})
        assert reply.status_code == 422
        assert "not-a-purpose" not in reply.text


async def test_a_secret_or_name_that_is_there_is_answered_with_its_id(client: httpx.AsyncClient) -> None:
    first = await client.post("/credentials", json=credential("REGISTRY", "one"))
    again = await client.post("/credentials", json=credential("REGISTRY", "two"))
    assert (again.status_code, again.json()["type"]) == (409, "/problems/credential-exists")
    named = await client.post("/credentials", json=credential("AWS", "one"))
    assert (named.status_code, named.json()["type"]) == (409, "/problems/credential-name-taken")
    assert again.json()["credential_id"] == named.json()["credential_id"] == first.json()["id"]


async def test_exactly_one_wins_when_many_store_one_secret_at_once(client: httpx.AsyncClient) -> None:
    bodies = [credential("AWS", f"name-{n}") for n in range(8)]
    replies = await asyncio.gather(*(client.post("/credentials", json=body) for body in bodies))
    assert sorted(reply.status_code for reply in replies) == [201] + [409] * 7


async def test_an_expired_secret_is_neither_taken_nor_opened(client: httpx.AsyncClient, service: Service) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    refused = await client.post("/credentials", json=credential("AWS", expires_at=past))
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/expiry-in-the-past")

    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    made = await client.post("/credentials", json=credential("AWS", expires_at=soon))
    identity = UUID(made.json()["id"])

    class Tomorrow:
        def now(self) -> datetime:
            return datetime.now(UTC) + timedelta(days=2)

    edge = service.edge
    late = CredentialService(edge.service(Vault), edge.database, Tomorrow())
    with pytest.raises(CredentialExpired):
        await late.open_(identity, purpose=CredentialPurpose.AWS, operation="late")
    with pytest.raises(CredentialUnfit):
        await edge.service(CredentialService).open_(identity, purpose=CredentialPurpose.REGISTRY, operation="unfit")


async def test_deleting_is_refused_while_something_uses_it(client: httpx.AsyncClient, service: Service) -> None:
    class Busy:
        async def users_of(self, session: ReadSession, credential_id: UUID) -> Sequence[User]:
            return [User("cluster", uuid4(), "berlin-lab")]

    guard: UsageGuard = Busy()
    edge = service.edge
    edge.provide(CredentialService, CredentialService(edge.service(Vault), edge.database, edge.clock, [guard]))
    made = await client.post("/credentials", json=credential("AWS"))
    reply = await client.delete(made.headers["Location"])
    assert (reply.status_code, reply.json()["type"]) == (409, "/problems/credential-in-use")
    assert reply.json()["used_by"][0]["name"] == "berlin-lab"
    assert (await client.get(made.headers["Location"])).status_code == 200


async def test_without_keys_nothing_is_stored_and_the_way_out_is_told(
    client: httpx.AsyncClient, service: Service
) -> None:
    service.edge.settings.rsa_private_key_path.unlink()
    reply = await client.post("/credentials", json=credential("AWS"))
    assert (reply.status_code, reply.json()["type"]) == (503, "/problems/key-unusable")
    assert "setup-crypto-keys.sh" in reply.json()["detail"]
    assert (await client.get("/readyz")).json()["problems"].keys() == {"keys"}
    assert (await client.get("/credentials")).json()["items"] == []


async def test_the_trail_is_filtered_and_paged(client: httpx.AsyncClient) -> None:
    begin = datetime.now(UTC)
    for purpose in SECRETS:
        await client.post("/credentials", json=credential(purpose, purpose.lower().replace("_", "-")))
    first = (await client.get("/audit?action=credential.registered&limit=3")).json()
    rest = (await client.get(f"/audit?action=credential.registered&limit=3&cursor={first['next_cursor']}")).json()
    names = [event["subject_name"] for event in first["items"] + rest["items"]]
    assert names == ["registry", "hugging-face", "azure", "aws"]

    async def count(**query: str) -> int:
        reply = await client.get("/audit", params=query)
        assert reply.status_code == 200, reply.text
        return len(reply.json()["items"])

    assert await count(since=begin.isoformat(), outcome="succeeded", subject_type="credential") == 4
    assert await count(until=begin.isoformat()) == 0
    assert await count(actor="token:nobody") == 0
    assert await count(request_id=first["items"][0]["request_id"]) == 1
    assert (await client.get("/audit?outcome=odd")).status_code == 422
