"""`/credentials`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from budcluster.api.dependencies import CurrentActor, Read, Write, provided
from budcluster.api.errors import InvalidCursor
from budcluster.api.etag import IfMatch, tag
from budcluster.api.problems import problems
from budcluster.api.schemas import Page
from budcluster.api.transaction import TransactionalRoute
from budcluster.credentials.errors import (
    CredentialExists,
    CredentialInUse,
    CredentialNameTaken,
    CredentialNotFound,
    ExpiryInThePast,
    KeyUnusable,
)
from budcluster.credentials.schemas import CredentialAnswer, CredentialQuery, CredentialRegistration
from budcluster.credentials.services import CredentialService
from budcluster.kit.errors import StaleVersion

Credentials = Annotated[CredentialService, provided(CredentialService)]

router = APIRouter(prefix="/credentials", tags=["credentials"], route_class=TransactionalRoute)


@router.get("", operation_id="list_credentials", summary="List credentials", responses=problems(InvalidCursor))
async def list_credentials(
    query: Annotated[CredentialQuery, Query()], session: Read, credentials: Credentials
) -> Page[CredentialAnswer]:
    """What is known about each stored secret; never the secret."""
    return Page[CredentialAnswer].model_validate(await credentials.list(session, query))


@router.post(
    "",
    status_code=201,
    operation_id="register_credential",
    summary="Store a secret",
    responses=problems(CredentialNameTaken, CredentialExists, ExpiryInThePast, KeyUnusable),
)
async def register_credential(
    body: CredentialRegistration, session: Write, credentials: Credentials, actor: CurrentActor, response: Response
) -> CredentialAnswer:
    """Seals the secret and keeps it. It is used by its id and never shown again."""
    credential = await credentials.register(session, body, actor=actor.name)
    tag(response, credential.version)
    response.headers["Location"] = f"/credentials/{credential.id}"
    return CredentialAnswer.model_validate(credential)


@router.get(
    "/{credential_id}",
    operation_id="get_credential",
    summary="Look at one credential",
    responses=problems(CredentialNotFound),
)
async def get_credential(
    credential_id: UUID, session: Read, credentials: Credentials, response: Response
) -> CredentialAnswer:
    """What is known about a stored secret; never the secret."""
    credential = await credentials.get(session, credential_id)
    tag(response, credential.version)
    return CredentialAnswer.model_validate(credential)


@router.delete(
    "/{credential_id}",
    status_code=204,
    operation_id="delete_credential",
    summary="Forget a secret",
    responses=problems(CredentialNotFound, CredentialInUse, StaleVersion),
)
async def delete_credential(
    credential_id: UUID, session: Write, credentials: Credentials, actor: CurrentActor, if_match: IfMatch = None
) -> None:
    """Deletes the secret for good. Refused while something works with it."""
    await credentials.delete(session, credential_id, actor=actor.name, if_match=if_match)
