"""Credentials in the database."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from budcluster.api.paging import Listing, PageQuery, Rows
from budcluster.credentials.envelope import Owner
from budcluster.credentials.errors import CredentialExists, CredentialNameTaken, CredentialNotFound
from budcluster.credentials.models import Credential, CredentialPurpose
from budcluster.kit.database import ReadSession, WriteSession
from budcluster.kit.sealed import Sealed

_LISTING = Listing(
    Credential,
    key=Credential.id,
    sorts={"created_at": Credential.created_at, "name": Credential.name},
    filters={"purpose": Credential.purpose, "name": Credential.name, "cluster_id": Credential.cluster_id},
)


def owner_of(credential_id: UUID) -> Owner:
    """Where the credential's secret belongs."""
    return Owner("credentials.secret", credential_id)


async def list_credentials(session: ReadSession, query: PageQuery) -> Rows[Credential]:
    """One page of credentials. Raises InvalidCursor."""
    return await _LISTING.page(session, query)


async def get_credential(session: ReadSession, credential_id: UUID) -> Credential:
    """The credential. Raises CredentialNotFound."""
    credential = await session.get(Credential, credential_id)
    if credential is None:
        raise CredentialNotFound(credential_id)
    return credential


async def lock_credential(session: WriteSession, credential_id: UUID) -> Credential:
    """The credential, held until the transaction ends. Raises CredentialNotFound."""
    credential = await session.get(Credential, credential_id, with_for_update=True)
    if credential is None:
        raise CredentialNotFound(credential_id)
    return credential


async def add_credential(
    session: WriteSession,
    *,
    credential_id: UUID,
    name: str,
    purpose: CredentialPurpose,
    cluster_id: UUID | None,
    secret: Sealed,
    fingerprint: str,
    expires_at: datetime | None,
) -> Credential:
    """Write a new row; of several that come at once with one name or secret exactly one wins.

    Raises CredentialNameTaken, CredentialExists.
    """
    row = {
        "id": credential_id,
        "name": name,
        "purpose": purpose,
        "cluster_id": cluster_id,
        "secret": secret,
        "fingerprint": fingerprint,
        "expires_at": expires_at,
        "version": 1,
    }
    statement = insert(Credential).values(row).on_conflict_do_nothing().returning(Credential)
    credential = (await session.scalars(statement)).one_or_none()
    if credential is not None:
        return credential
    same_name = (await session.scalars(select(Credential.id).where(Credential.name == name))).one_or_none()
    if same_name is not None:
        raise CredentialNameTaken(name, same_name)
    twin = (
        await session.scalars(
            select(Credential).where(Credential.fingerprint == fingerprint, Credential.cluster_id.is_(None))
        )
    ).one()
    raise CredentialExists(twin.name, twin.id)


async def note_use(session: WriteSession, credential_id: UUID, at: datetime) -> None:
    """Write down when a credential was last opened; no new version, for nothing that clients change has changed."""
    await session.execute(
        update(Credential)
        .where(Credential.id == credential_id)
        .values(last_used_at=at, updated_at=Credential.updated_at)
        .execution_options(synchronize_session=False)
    )
