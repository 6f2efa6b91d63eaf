"""Opens a cluster with the credential that is stored for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from budcluster.cluster.errors import ClusterNotFound
from budcluster.cluster.models import Cluster
from budcluster.cluster.uploads import find_upload
from budcluster.credentials.envelope import Owner
from budcluster.credentials.repository import owner_of
from budcluster.credentials.vault import Vault
from budcluster.kit.clock import Clock
from budcluster.kit.command import LineSink
from budcluster.kit.database import Database
from budcluster.kit.errors import DomainError
from budcluster.kube.client import ClusterClient
from budcluster.kube.door import Door, Doors
from budcluster.kube.errors import KubeError
from budcluster.kube.kubeconfig import Kubeconfig, read_kubeconfig
from budcluster.kube.refusals import KubeconfigRefused

COLUMN: Final = "clusters.kubeconfig_encrypted"


class NoCredential(Exception):
    """The service holds no credential for this cluster: it was never onboarded to the end."""

    next_step = "Onboard the cluster with a kubeconfig: POST /clusters/{id}/onboard."


NO_ACCESS: Final = (KubeError, NoCredential, KubeconfigRefused, DomainError)
"""What whoever follows a cluster for long has to expect of it, and waits out."""


def kubeconfig_owner(cluster_id: UUID) -> Owner:
    """Where a cluster's own credential belongs."""
    return Owner(COLUMN, cluster_id)


class ClusterAccess:
    """The way to a cluster for everything above. No database session is open while the cluster is spoken to."""

    def __init__(self, database: Database, vault: Vault, doors: Doors, *, clock: Clock, allow_local: bool) -> None:
        """`allow_local` as in KUBERNETES__ALLOW_LOCAL_SERVERS."""
        self._database = database
        self._vault = vault
        self._doors = doors
        self._clock = clock
        self._allow_local = allow_local

    @asynccontextmanager
    async def open(self, cluster_id: UUID, *, operation: str, on_line: LineSink | None = None) -> AsyncIterator[Door]:
        """The cluster, with the credential in use. `operation` names the work for the audit trail.

        Raises ClusterNotFound, NoCredential, and what the vault raises.
        """
        kubeconfig = await self.kubeconfig(cluster_id, operation=operation)
        async with self._doors.open(kubeconfig, on_line=on_line) as door:
            yield door

    @asynccontextmanager
    async def open_upload(
        self, cluster_id: UUID, *, operation: str, on_line: LineSink | None = None
    ) -> AsyncIterator[Door]:
        """The cluster, with the kubeconfig that was uploaded to onboard it. Raises NoCredential."""
        kubeconfig = await self._uploaded(cluster_id, operation=operation)
        async with self._doors.open(kubeconfig, on_line=on_line) as door:
            yield door

    @asynccontextmanager
    async def open_either(self, cluster_id: UUID, *, operation: str) -> AsyncIterator[Door]:
        """The cluster, with the credential in use, or where none was kept yet with the uploaded kubeconfig.

        Raises ClusterNotFound, NoCredential, and what the vault raises.
        """
        try:
            kubeconfig = await self.kubeconfig(cluster_id, operation=operation)
        except NoCredential:
            kubeconfig = await self._uploaded(cluster_id, operation=operation)
        async with self._doors.open(kubeconfig) as door:
            yield door

    def connect(self, kubeconfig: Kubeconfig) -> ClusterClient:
        """A cluster's API, with a credential that is not stored yet."""
        return self._doors.connect(kubeconfig)

    async def kubeconfig(self, cluster_id: UUID, *, operation: str) -> Kubeconfig:
        """The credential in use. Raises ClusterNotFound, NoCredential."""
        async with self._database.reading() as session:
            cluster = await session.get(Cluster, cluster_id)
            if cluster is None:
                raise ClusterNotFound(cluster_id)
            sealed = cluster.kubeconfig_encrypted
        if sealed is None:
            raise NoCredential(f"The service holds no credential for the cluster {cluster_id}.")
        secret = await self._vault.open_(sealed, kubeconfig_owner(cluster_id), operation=operation)
        return self._read(secret.text())

    async def _uploaded(self, cluster_id: UUID, *, operation: str) -> Kubeconfig:
        async with self._database.reading() as session:
            credential = await find_upload(session, cluster_id)
        if credential is None:
            raise NoCredential(f"There is no uploaded kubeconfig for the cluster {cluster_id}.")
        secret = await self._vault.open_(credential.secret, owner_of(credential.id), operation=operation)
        return self._read(secret.text())

    def _read(self, text: str) -> Kubeconfig:
        return read_kubeconfig(text, now=self._clock.now(), allow_local=self._allow_local)
