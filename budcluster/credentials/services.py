"""What may be done with credentials."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID, uuid4

import structlog
from pydantic import BaseModel, SecretStr

from budcluster.api.etag import require_match
from budcluster.api.paging import Rows
from budcluster.audit import services as audit
from budcluster.credentials import repository
from budcluster.credentials.errors import CredentialExpired, CredentialInUse, CredentialUnfit, ExpiryInThePast
from budcluster.credentials.models import Credential, CredentialPurpose
from budcluster.credentials.schemas import CredentialQuery, CredentialRegistration
from budcluster.credentials.vault import Secret, Vault
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database, ReadSession, WriteSession

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class User:
    """Something that works with a credential."""

    kind: str
    """`cluster` or `deployment`."""
    id: UUID
    name: str


class UsageGuard(Protocol):
    """Answers what works with a credential; features that use credentials provide one each."""

    async def users_of(self, session: ReadSession, credential_id: UUID) -> Sequence[User]:
        """All users, or none. Asked while the credential's row is held."""


class CredentialService:
    """Keeping secrets, telling about them, opening them for their purpose, forgetting them."""

    def __init__(self, vault: Vault, database: Database, clock: Clock, guards: Sequence[UsageGuard] = ()) -> None:
        self._vault = vault
        self._database = database
        self._clock = clock
        self._guards = guards

    async def list(self, session: ReadSession, query: CredentialQuery) -> Rows[Credential]:
        """One page. Raises InvalidCursor."""
        return await repository.list_credentials(session, query)

    async def get(self, session: ReadSession, credential_id: UUID) -> Credential:
        """One credential, its secret sealed. Raises CredentialNotFound."""
        return await repository.get_credential(session, credential_id)

    async def register(self, session: WriteSession, wanted: CredentialRegistration, *, actor: str) -> Credential:
        """Seal and keep a caller's secret.

        Raises ExpiryInThePast, CredentialNameTaken, CredentialExists and KeyUnusable.
        """
        if wanted.expires_at is not None and wanted.expires_at <= self._clock.now():
            raise ExpiryInThePast
        return await self.keep(
            session,
            name=wanted.name,
            purpose=CredentialPurpose(wanted.purpose),
            content=_document(wanted.secret),
            expires_at=wanted.expires_at,
            actor=actor,
        )

    async def keep(
        self,
        session: WriteSession,
        *,
        name: str,
        purpose: CredentialPurpose,
        content: bytes,
        cluster_id: UUID | None = None,
        expires_at: datetime | None = None,
        actor: str = audit.SYSTEM,
    ) -> Credential:
        """Seal and keep any content, in the caller's transaction.

        Raises CredentialNameTaken, CredentialExists, TooLarge and KeyUnusable.
        """
        credential_id = uuid4()
        credential = await repository.add_credential(
            session,
            credential_id=credential_id,
            name=name,
            purpose=purpose,
            cluster_id=cluster_id,
            secret=self._vault.seal(content, repository.owner_of(credential_id)),
            fingerprint=self._vault.fingerprint(content, purpose.value),
            expires_at=expires_at,
        )
        await _record(session, "credential.registered", credential, actor)
        log.info("credential.registered", credential_id=str(credential_id), purpose=purpose.value)
        return credential

    async def open_(
        self, credential_id: UUID, *, purpose: CredentialPurpose, operation: str, actor: str = audit.SYSTEM
    ) -> Secret:
        """The secret, for its purpose only; for the four purposes of callers it is JSON of the fields of `schemas`.

        Opens sessions of its own; call it outside of others. Audited once per `operation`.

        Raises CredentialNotFound, CredentialUnfit, CredentialExpired and what `Vault.open_` raises.
        """
        async with self._database.reading() as session:
            credential = await repository.get_credential(session, credential_id)
        if credential.purpose is not purpose:
            raise CredentialUnfit(credential.name, credential.purpose.value, purpose.value)
        now = self._clock.now()
        if credential.expires_at is not None and credential.expires_at <= now:
            raise CredentialExpired(credential.name, credential.expires_at)
        owner = repository.owner_of(credential_id)
        secret = await self._vault.open_(credential.secret, owner, operation=operation, actor=actor)
        async with self._database.writing() as session:
            await repository.note_use(session, credential_id, now)
        return secret

    async def delete(
        self, session: WriteSession, credential_id: UUID, *, actor: str, if_match: str | None = None
    ) -> None:
        """Forget a secret for good. Raises CredentialNotFound, StaleVersion and CredentialInUse."""
        credential = await repository.lock_credential(session, credential_id)
        require_match(if_match, credential.version)
        users = [user for guard in self._guards for user in await guard.users_of(session, credential_id)]
        if users:
            raise CredentialInUse([asdict(user) for user in users])
        await session.delete(credential)
        await session.flush()
        await _record(session, "credential.deleted", credential, actor)
        log.info("credential.deleted", credential_id=str(credential_id))


async def _record(session: WriteSession, action: str, credential: Credential, actor: str) -> None:
    await audit.record(
        session,
        actor=actor,
        action=action,
        subject_type="credential",
        subject_id=credential.id,
        subject_name=credential.name,
        facts={"purpose": credential.purpose.value},
    )


def _document(secret: BaseModel) -> bytes:
    """The secret's fields as JSON in one fixed form, so that equal secrets have equal fingerprints."""
    return json.dumps(_revealed(secret), sort_keys=True, separators=(",", ":")).encode()


def _revealed(secret: BaseModel) -> dict[str, Any]:
    fields = {name: getattr(secret, name) for name in type(secret).model_fields}
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in fields.items()
        if value is not None
    }
