"""Asking for long work on a cluster: onboarding, detection, sharing of GPUs, deletion. Sessions are the caller's."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from budcluster.cluster import refs, workflows
from budcluster.cluster.errors import (
    ClusterHasDeployments,
    ClusterIsBeingDeleted,
    ClusterKnownAlready,
    ClusterNotFound,
    ClusterNotReady,
    GpusInUse,
    KubeconfigNotAccepted,
)
from budcluster.cluster.followers import CHOICES, OPTIONS_BEFORE, record, standing
from budcluster.cluster.lifecycle import move
from budcluster.cluster.models import Cluster, ClusterStatus
from budcluster.cluster.options import ClusterOptions
from budcluster.cluster.uploads import forget_upload, keep_upload
from budcluster.credentials.vault import Vault
from budcluster.hardware.gpu_holders import gpu_holders
from budcluster.kit.clock import Clock
from budcluster.kit.database import ReadSession, WriteSession
from budcluster.kube.kubeconfig import Kubeconfig, read_kubeconfig
from budcluster.kube.refusals import KubeconfigRefused, SeveralContexts, SeveralProblems
from budcluster.operations.contracts import Workflow
from budcluster.operations.models import Operation, SubjectType
from budcluster.operations.services import Operations, Subject
from budcluster.operations.workflow import Step


class DeletionGuard(Protocol):
    """Answers whether something still runs on a cluster; the deployment feature provides one."""

    async def occupants(self, session: ReadSession, cluster_id: UUID) -> Sequence[str]:
        """Names of what is there; nothing when the cluster may go."""


class Unoccupied:
    """The guard of a service without deployments."""

    async def occupants(self, session: ReadSession, cluster_id: UUID) -> Sequence[str]:  # noqa: ARG002
        return ()


class ClusterWork:
    """Long work on clusters. Every call writes the row and the operation in one transaction."""

    def __init__(
        self,
        operations: Operations,
        vault: Vault,
        clock: Clock,
        *,
        allow_local: bool,
        guard: DeletionGuard | None = None,
    ) -> None:
        self._operations = operations
        self._vault = vault
        self._clock = clock
        self._allow_local = allow_local
        self._guard = guard or Unoccupied()

    async def onboard(
        self,
        session: WriteSession,
        cluster_id: UUID,
        *,
        kubeconfig: str,
        context: str | None,
        choices: Mapping[str, Any],
        actor: str,
        force: bool = False,
        take_over: bool = False,
    ) -> tuple[Cluster, Operation]:
        """Check and seal the kubeconfig and ask for onboarding. A failed one goes on, a ready one is renewed.

        `choices` are options by name; those that are not named stay as they are. `force` changes how GPUs are shared
        although pods hold them, `take_over` takes a cluster that another budcluster manages.

        Raises ClusterNotFound, ClusterIsBeingDeleted, ClusterKnownAlready, GpusInUse, KubeconfigNotAccepted,
        OperationBusy.
        """
        # Before the row is locked: a large kubeconfig takes a while to read.
        wanted = await asyncio.to_thread(self._read, kubeconfig, context)
        cluster = await self._locked(session, cluster_id)
        if cluster.status is ClusterStatus.DELETING:
            raise ClusterIsBeingDeleted(cluster.name)
        present = ClusterOptions.of(cluster)
        options = present.changed(choices)
        if not force and options.changes_gpus_of(present) and (pods := await gpu_holders(session, cluster.id)):
            raise GpusInUse(pods)
        await self._claim_server(session, cluster, wanted.server)
        payload = {**standing(cluster), CHOICES: dict(choices), "take_over": take_over, "force": force}
        operation = await self._request(session, cluster, "onboard_cluster", actor, payload=payload)
        await keep_upload(session, self._vault, cluster.id, wanted)
        cluster.settings = options.as_settings()
        cluster.error = None
        if cluster.status is not ClusterStatus.PROVISIONING:
            move(cluster, ClusterStatus.PROVISIONING)
        await session.flush()
        await record(session, actor, "cluster.onboarding_requested", cluster)
        return cluster, operation

    async def detect_hardware(
        self, session: WriteSession, cluster_id: UUID, *, actor: str
    ) -> tuple[Cluster, Operation]:
        """Ask for a fresh look at the hardware. Raises ClusterNotFound, ClusterNotReady, OperationBusy."""
        cluster = await self._ready(session, cluster_id)
        operation = await self._request(session, cluster, "detect_hardware", actor)
        await self._forget_overtaken(session, cluster)
        return cluster, operation

    async def share_gpus(
        self, session: WriteSession, cluster_id: UUID, *, options: ClusterOptions, force: bool, actor: str
    ) -> tuple[Cluster, Operation]:
        """Ask for another way of handing out GPUs. Raises ClusterNotFound, ClusterNotReady, OperationBusy."""
        cluster = await self._ready(session, cluster_id)
        payload = {
            "force": force,
            CHOICES: options.model_dump(mode="json", include={"gpu_sharing", "replicas_per_gpu"}),
            OPTIONS_BEFORE: ClusterOptions.of(cluster).as_settings(),
        }
        operation = await self._request(session, cluster, "share_gpus", actor, payload=payload)
        await self._forget_overtaken(session, cluster)
        cluster.settings = options.as_settings()
        await session.flush()
        await record(session, actor, "cluster.sharing_requested", cluster, facts={"mode": options.gpu_sharing})
        return cluster, operation

    async def delete(self, session: WriteSession, cluster_id: UUID, *, actor: str) -> tuple[Cluster, Operation]:
        """Ask for the end of a cluster: running work is cancelled first. Asking again changes nothing.

        Raises ClusterNotFound, ClusterHasDeployments.
        """
        cluster = await self._locked(session, cluster_id)
        if occupants := await self._guard.occupants(session, cluster_id):
            raise ClusterHasDeployments(cluster.name, list(occupants))
        operation = await self._request(session, cluster, "delete_cluster", actor, supersedes=True)
        if cluster.status is not ClusterStatus.DELETING:
            move(cluster, ClusterStatus.DELETING)
        await session.flush()
        await record(session, actor, "cluster.deletion_requested", cluster)
        return cluster, operation

    async def _request(
        self,
        session: WriteSession,
        cluster: Cluster,
        kind: str,
        actor: str,
        *,
        supersedes: bool = False,
        payload: Mapping[str, Any] | None = None,
    ) -> Operation:
        steps, workflow = _KINDS[kind]
        return await self._operations.request(
            session,
            kind=kind,
            subject=Subject(SubjectType.CLUSTER, cluster.id, cluster.name),
            steps=steps,
            workflow=workflow,
            actor=actor,
            payload=payload,
            supersedes=supersedes,
            cancelable=not supersedes,
        )

    async def _forget_overtaken(self, session: WriteSession, cluster: Cluster) -> None:
        """A failed renewal cannot be retried after newer work: nothing needs what was uploaded for it."""
        if not ClusterOptions.of(cluster).keep_upload:
            await forget_upload(session, cluster.id)

    async def _ready(self, session: WriteSession, cluster_id: UUID) -> Cluster:
        cluster = await self._locked(session, cluster_id)
        if cluster.status is not ClusterStatus.READY:
            raise ClusterNotReady(cluster.name, cluster.status)
        return cluster

    async def _locked(self, session: WriteSession, cluster_id: UUID) -> Cluster:
        cluster = await session.get(Cluster, cluster_id, with_for_update=True)
        if cluster is None:
            raise ClusterNotFound(cluster_id)
        return cluster

    def _read(self, text: str, context: str | None) -> Kubeconfig:
        try:
            return read_kubeconfig(text, now=self._clock.now(), context=context, allow_local=self._allow_local)
        except SeveralContexts as refused:
            reasons = [(refused.slug, refused.pointer, refused.detail)]
            raise KubeconfigNotAccepted(reasons, contexts=refused.contexts) from None
        except SeveralProblems as refused:
            raise KubeconfigNotAccepted([(p.slug, p.pointer, p.detail) for p in refused.problems]) from None
        except KubeconfigRefused as refused:
            raise KubeconfigNotAccepted([(refused.slug, refused.pointer, refused.detail)]) from None

    async def _claim_server(self, session: WriteSession, cluster: Cluster, server: str) -> None:
        """One row for one server; of two at once the constraint lets one win."""
        taken = select(Cluster.id).where(Cluster.server == server, Cluster.id != cluster.id)
        if known := (await session.scalars(taken)).one_or_none():
            raise ClusterKnownAlready(known)
        if cluster.system_uid is not None:
            return  # it is kept by what it is, and its address once the new credential is proven
        try:
            async with session.begin_nested():
                cluster.server = server
                await session.flush()
        except IntegrityError as error:
            known = (await session.scalars(taken)).one_or_none()
            if known is None:
                raise
            raise ClusterKnownAlready(known) from error


_KINDS: Final[Mapping[str, tuple[Sequence[Step], Workflow]]] = {
    "onboard_cluster": (workflows.ONBOARD_STEPS, refs.ONBOARD_CLUSTER),
    "detect_hardware": (workflows.DETECT_STEPS, refs.DETECT_HARDWARE),
    "share_gpus": (workflows.SHARE_STEPS, refs.SHARE_GPUS),
    "delete_cluster": (workflows.DELETE_STEPS, refs.DELETE_CLUSTER),
}
