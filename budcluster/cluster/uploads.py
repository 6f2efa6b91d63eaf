"""The kubeconfig that was uploaded to onboard a cluster: sealed, kept until that has ended.

Wanted only until the service has an account of its own. But only the end of the operation forgets it, in the
transaction that frees the cluster: a step that comes late would forget the upload of a newer one.
"""

from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, delete, select

from budcluster.credentials.models import Credential, CredentialPurpose
from budcluster.credentials.repository import owner_of
from budcluster.credentials.vault import Vault
from budcluster.kit.database import ReadSession, WriteSession
from budcluster.kube.kubeconfig import Kubeconfig


async def keep_upload(session: WriteSession, vault: Vault, cluster_id: UUID, kubeconfig: Kubeconfig) -> None:
    """Keep it, sealed, in place of an earlier one."""
    await forget_upload(session, cluster_id)
    content = kubeconfig.to_json().encode()
    credential_id = uuid4()
    session.add(
        Credential(
            id=credential_id,
            name=f"onboarding-{cluster_id.hex[:12]}",
            purpose=CredentialPurpose.ONBOARDING,
            cluster_id=cluster_id,
            secret=vault.seal(content, owner_of(credential_id)),
            fingerprint=vault.fingerprint(content, f"{CredentialPurpose.ONBOARDING} {cluster_id}"),
            expires_at=kubeconfig.expires_at,
        )
    )


async def find_upload(session: ReadSession, cluster_id: UUID) -> Credential | None:
    """The one that is kept."""
    return (await session.scalars(select(Credential).where(*_of(cluster_id)))).one_or_none()


async def forget_upload(session: WriteSession, cluster_id: UUID) -> None:
    """Forget it. One that is absent is no error."""
    await session.execute(delete(Credential).where(*_of(cluster_id)))


def _of(cluster_id: UUID) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Credential.cluster_id == cluster_id, Credential.purpose == CredentialPurpose.ONBOARDING
