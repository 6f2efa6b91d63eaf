"""The vault: opening is audited once an operation, refusals too, and nothing that it hands out can be printed."""

import copy
import json
import pickle
from uuid import uuid4

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from budcluster.audit.models import AuditEvent
from budcluster.credentials.envelope import Owner
from budcluster.credentials.errors import WrongOwner
from budcluster.credentials.ring import KeyRing
from budcluster.credentials.vault import Secret, Vault
from budcluster.kit.database import Database

CONTENT = b"hunter2-hunter2-hunter2"


@pytest.fixture
def vault(ring: KeyRing, database: Database) -> Vault:
    return Vault(ring, database)


async def trail(database: Database) -> list[AuditEvent]:
    async with database.reading() as session:
        return list((await session.scalars(select(AuditEvent).order_by(AuditEvent.at))).all())


async def test_opening_is_audited_once_an_operation(vault: Vault, ring: KeyRing, database: Database) -> None:
    owner = Owner("clusters.kubeconfig_encrypted", uuid4())
    sealed = vault.seal(CONTENT, owner)
    replica = Vault(ring, database)
    for opener, operation in ((vault, "one"), (vault, "one"), (replica, "one"), (vault, "two")):
        assert (await opener.open_(sealed, owner, operation=operation, actor="token:ci")).reveal() == CONTENT
    events = await trail(database)
    assert [(e.action, e.actor, e.subject_type, e.outcome) for e in events] == [
        ("credential.opened", "token:ci", "cluster", "succeeded")
    ] * 2
    assert {e.facts["operation"] for e in events} == {"one", "two"}
    assert {e.subject_id for e in events} == {owner.row}


async def test_a_refused_opening_is_audited_too(vault: Vault, database: Database) -> None:
    sealed = vault.seal(CONTENT, Owner("credentials.secret", uuid4()))
    thief = Owner("credentials.secret", uuid4())
    with capture_logs() as lines, pytest.raises(WrongOwner):
        await vault.open_(sealed, thief, operation="theft")
    (event,) = await trail(database)
    assert (event.outcome, event.subject_id, event.facts["problem"]) == ("refused", thief.row, "wrong-owner")
    assert lines[-1]["event"] == "credential.refused"


async def test_bulk_data_comes_back(vault: Vault) -> None:
    owner = Owner("clusters.terraform_state", uuid4())
    sealed = await vault.seal_bulk(CONTENT * 1000, owner)
    assert (await vault.open_bulk(sealed, owner)).reveal() == CONTENT * 1000


def test_an_opened_secret_shows_nothing() -> None:
    secret = Secret(CONTENT)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>30}",
        repr([secret]),
        repr({"a": secret}),
    ]
    assert not [text for text in shown if "hunter2" in text]
    assert secret.text().encode() == CONTENT
    assert len(secret) == len(CONTENT)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.copy(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)


def test_fingerprints_tell_equal_secrets_by_purpose_only(vault: Vault) -> None:
    assert vault.fingerprint(CONTENT, "AWS") == vault.fingerprint(CONTENT, "AWS")
    assert vault.fingerprint(CONTENT, "AWS") != vault.fingerprint(CONTENT, "REGISTRY")
