"""Asking for long work on deployments: deploy, scale, change, go back, delete. Sessions are the caller's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import select

from budcluster.api.etag import require_match
from budcluster.audit import services as audit
from budcluster.deployment import capacity, refs, repository, workflows
from budcluster.deployment.admission import Admission, Decision, Description
from budcluster.deployment.errors import (
    DeploymentIsBeingDeleted,
    DeploymentNameTaken,
    DeploymentNeverServed,
    IngressHostTaken,
    RevisionNotFound,
)
from budcluster.deployment.helm_utils import release_of
from budcluster.deployment.intent import (
    changed_config,
    earlier_config,
    is_target,
    payload_of,
    present_of,
    require_room,
    require_same_claim,
    wanted_by,
)
from budcluster.deployment.lifecycle import move
from budcluster.deployment.models import DELETION, Deployment, DeploymentRevision, DeploymentStatus
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import Wanted, require_sound
from budcluster.deployment.schemas import DeploymentChange, DeploymentRequest
from budcluster.deployment.turns import Turns
from budcluster.deployment.values import never_smaller
from budcluster.kit.database import Database, WriteSession
from budcluster.kube.door import Doors
from budcluster.operations.contracts import Workflow
from budcluster.operations.models import Operation, SubjectType
from budcluster.operations.services import Operations, Subject
from budcluster.operations.workflow import Step


@dataclass(frozen=True)
class Accepted:
    """Long work that was begun."""

    deployment: Deployment
    operation: Operation
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rendered:
    """What a request would do."""

    decision: Decision
    warnings: tuple[str, ...]
    manifests: list[dict[str, Any]]


class DeploymentWork:
    """Long work on deployments. Every call writes the row and the operation in one transaction."""

    def __init__(
        self,
        database: Database,
        operations: Operations,
        admission: Admission,
        doors: Doors,
        turns: Turns,
        *,
        namespace: str,
    ) -> None:
        """`namespace` is where new releases go."""
        self.turns = turns
        self._database = database
        self._operations = operations
        self._admission = admission
        self._doors = doors
        self._namespace = namespace

    async def describe(self, request: DeploymentRequest, *, actor: str) -> Description:
        """What is known of the model. The hub may be slow: no session is open meanwhile. Raises ConfigNotUsable."""
        return await self._admission.describe(request.model, request.config, actor=actor)

    async def preview(self, request: DeploymentRequest, *, actor: str) -> Rendered:
        """What the request would do, without doing it. Raises ClusterNotFound, ClusterNotReady, ConfigNotUsable."""
        known = await self.describe(request, actor=actor)
        wanted = wanted_by(request, known)
        async with self._database.reading() as session:
            cluster = await self._admission.ready_cluster(session, request.cluster_id)
            await self._admission.require_credentials(session, request.config)
            decision = await self._admission.decide(session, cluster, wanted)
        manifests = await self._doors.render(release_of(wanted.release, self._namespace, decision.values))
        return Rendered(decision, (*known.warnings, *decision.warnings), manifests)

    async def create(
        self, session: WriteSession, request: DeploymentRequest, known: Description, *, force: bool, actor: str
    ) -> Accepted:
        """Check the request and ask for the deployment, in the cluster's turn.

        Raises ClusterNotFound, ClusterNotReady, ConfigNotUsable, DeploymentNameTaken, IngressHostTaken, NoCapacity.
        """
        wanted = wanted_by(request, known)
        cluster = await self._admission.ready_cluster(session, request.cluster_id, lock=True)
        await self._admission.require_credentials(session, request.config)
        await capacity.hold(session, cluster.id)
        decision = await self._admission.decide(session, cluster, wanted)
        require_room(decision.fit, force=force)
        await self._require_free_host(session, cluster.id, wanted)
        deployment = Deployment(
            id=wanted.id,
            cluster_id=cluster.id,
            endpoint_id=request.endpoint_id,
            model_id=request.model_id,
            name=wanted.name,
            model=wanted.model,
            runtime=decision.runtime,
            config=wanted.config.kept(),
            max_model_len=decision.max_model_len,
            labels=request.labels,
            status=DeploymentStatus.PENDING,
            namespace=self._namespace,
            helm_release=wanted.release,
            revision=1,
            replicas_desired=wanted.config.replicas,
            model_facts=known.facts.document() if known.facts else None,
        )
        await self._add(session, deployment)
        payload = {"revision": 1, "replicas": deployment.replicas_desired, "force": force}
        operation = await self._request(session, deployment, "deploy_model", actor, payload)
        self._add_revision(session, deployment, 1, decision.values, operation, "first deployment")
        await self._audit(session, actor, "deployment.requested", deployment, model=deployment.model)
        return Accepted(deployment, operation, (*known.warnings, *decision.warnings))

    async def scale(
        self,
        session: WriteSession,
        deployment_id: UUID,
        replicas: int,
        *,
        force: bool,
        actor: str,
        if_match: str | None = None,
    ) -> Accepted:
        """Ask for another number of copies, in the cluster's turn; zero parks it.

        Raises DeploymentNotFound, DeploymentNeverServed, OperationBusy, ConfigNotUsable, NoCapacity, StaleVersion.
        """
        deployment, operation = await self._begin(session, deployment_id, "scale_deployment", actor, if_match)
        config = DeploymentConfig.model_validate(deployment.config)
        require_sound(config, replicas=replicas)
        operation.payload = payload_of(deployment, replicas=replicas, revision=deployment.revision, force=force)
        warnings: tuple[str, ...] = ()
        if replicas > deployment.replicas_desired:
            warnings = await self._require_room_for(session, deployment, replicas, force=force)
        if replicas:
            deployment.config = {**config.kept(), "replicas": replicas}
        deployment.replicas_desired = replicas
        move(deployment, DeploymentStatus.UPDATING)
        await session.flush()
        await self._audit(session, actor, "deployment.scaling_requested", deployment, replicas=str(replicas))
        return Accepted(deployment, operation, warnings)

    async def change(
        self,
        session: WriteSession,
        deployment_id: UUID,
        change: DeploymentChange,
        *,
        force: bool,
        actor: str,
        if_match: str | None = None,
    ) -> Accepted | Deployment:
        """Ask for another way to run, in the cluster's turn; labels alone change at once.

        Raises DeploymentNotFound, DeploymentNeverServed, OperationBusy, ConfigNotUsable, IngressHostTaken, NoCapacity,
        StaleVersion.
        """
        seen = await repository.get_deployment(session, deployment_id)
        if changed_config(seen, change) is None:
            return await self._relabel(session, deployment_id, change, if_match)
        deployment, operation = await self._begin(session, deployment_id, "update_deployment", actor, if_match)
        if change.labels is not None:
            deployment.labels = change.labels
        # Somebody else may have asked for the same between the two looks.
        config = changed_config(deployment, change) or DeploymentConfig.model_validate(deployment.config)
        return await self._rerun(session, deployment, operation, config, force=force, reason="changed")

    async def roll_back(
        self,
        session: WriteSession,
        deployment_id: UUID,
        number: int | None,
        *,
        force: bool,
        actor: str,
        if_match: str | None = None,
    ) -> Accepted:
        """Ask to run as an earlier revision did, in the cluster's turn.

        Without a number that is the last one that served before the present one. Raises RevisionNotFound, and what
        `change` raises.
        """
        deployment, operation = await self._begin(session, deployment_id, "update_deployment", actor, if_match)
        revisions = await repository.revisions_of(session, deployment.id)
        found = next((r for r in revisions if is_target(r, number, deployment.revision)), None)
        if found is None:
            raise RevisionNotFound(number)
        config = earlier_config(found, replicas=deployment.replicas_desired)
        reason = f"back to revision {found.number}"
        return await self._rerun(session, deployment, operation, config, force=force, reason=reason)

    async def delete(
        self, session: WriteSession, deployment_id: UUID, *, keep_cache: bool, force: bool, actor: str
    ) -> Accepted:
        """Ask for its end: running work is cancelled first. Asking again changes nothing. Raises DeploymentNotFound."""
        seen = await repository.get_deployment(session, deployment_id)
        payload = {"keep_cache": keep_cache, "force": force}
        operation = await self._request(session, seen, DELETION, actor, payload)
        deployment = await repository.lock_deployment(session, deployment_id)
        if deployment.status is not DeploymentStatus.DELETING:
            move(deployment, DeploymentStatus.DELETING)
            await session.flush()
            await self._audit(session, actor, "deployment.deletion_requested", deployment)
        return Accepted(deployment, operation)

    async def _rerun(
        self,
        session: WriteSession,
        deployment: Deployment,
        operation: Operation,
        config: DeploymentConfig,
        *,
        force: bool,
        reason: str,
    ) -> Accepted:
        revisions = await repository.revisions_of(session, deployment.id)
        number = revisions[0].number + 1
        present = next(revision for revision in revisions if revision.number == deployment.revision)
        replicas = deployment.replicas_desired
        operation.payload = payload_of(deployment, replicas=replicas, revision=number, force=force)
        await self._admission.require_credentials(session, config)
        cluster = await self._admission.ready_cluster(session, deployment.cluster_id)
        await capacity.hold(session, cluster.id)
        wanted = replace(present_of(deployment), config=config)
        require_same_claim(config, revisions)
        decision = await self._admission.decide_change(session, cluster, deployment, wanted, present.values)
        require_room(decision.fit, force=force)
        await self._require_free_host(session, cluster.id, wanted)
        values = never_smaller(decision.values, [revision.values for revision in revisions])
        deployment.config = config.kept()
        deployment.max_model_len = decision.max_model_len
        deployment.revision = number
        self._add_revision(session, deployment, number, values, operation, reason)
        move(deployment, DeploymentStatus.UPDATING)
        await session.flush()
        await self._audit(session, operation.actor, "deployment.change_requested", deployment, revision=str(number))
        return Accepted(deployment, operation, decision.warnings)

    async def _require_room_for(
        self, session: WriteSession, deployment: Deployment, replicas: int, *, force: bool
    ) -> tuple[str, ...]:
        cluster = await self._admission.ready_cluster(session, deployment.cluster_id)
        await capacity.hold(session, cluster.id)
        present = await repository.get_revision(session, deployment.id, deployment.revision)
        fit = await self._admission.fit_of(session, cluster, deployment, present, replicas=replicas)
        require_room(fit, force=force)
        return fit.warnings

    async def _require_free_host(self, session: WriteSession, cluster_id: UUID, wanted: Wanted) -> None:
        """Raises IngressHostTaken: an ingress controller would send each request to either of two."""
        host = wanted.config.ingress_host
        if host is None:
            return
        same = select(Deployment.id).where(
            Deployment.cluster_id == cluster_id,
            Deployment.config.contains({"ingress_host": host}),
            Deployment.id != wanted.id,
        )
        if taken := (await session.scalars(same.limit(1))).one_or_none():
            raise IngressHostTaken(host, taken)

    async def _begin(
        self, session: WriteSession, deployment_id: UUID, kind: str, actor: str, if_match: str | None
    ) -> tuple[Deployment, Operation]:
        """Hold the subject, then its row: in the order in which retries and endings take them.

        The row is read after the subject is held, so what the operation goes back to is what the last one left.
        """
        seen = await repository.get_deployment(session, deployment_id)
        if seen.status is DeploymentStatus.DELETING:
            raise DeploymentIsBeingDeleted(seen.name)
        operation = await self._request(session, seen, kind, actor, {"revision": 0})
        deployment = await repository.lock_deployment(session, deployment_id)
        require_match(if_match, deployment.version)
        if not any(revision.served_at for revision in await repository.revisions_of(session, deployment_id)):
            raise DeploymentNeverServed(deployment.name, deployment.status)
        return deployment, operation

    async def _relabel(
        self, session: WriteSession, deployment_id: UUID, change: DeploymentChange, if_match: str | None
    ) -> Deployment:
        deployment = await repository.lock_deployment(session, deployment_id)
        require_match(if_match, deployment.version)
        if change.labels is not None:
            deployment.labels = change.labels
            await session.flush()
        return deployment

    async def _request(
        self, session: WriteSession, deployment: Deployment, kind: str, actor: str, payload: dict[str, Any]
    ) -> Operation:
        steps, workflow = _KINDS[kind]
        ends_it = kind == DELETION
        return await self._operations.request(
            session,
            kind=kind,
            subject=Subject(SubjectType.DEPLOYMENT, deployment.id, deployment.name),
            steps=steps,
            workflow=workflow,
            actor=actor,
            payload=payload,
            is_new_subject=kind == "deploy_model",
            supersedes=ends_it,
            cancelable=not ends_it,
        )

    async def _add(self, session: WriteSession, deployment: Deployment) -> None:
        """Raises DeploymentNameTaken. Whoever adds one holds the cluster's lock: none of this name can come between."""
        same = select(Deployment.id).where(
            Deployment.cluster_id == deployment.cluster_id, Deployment.name == deployment.name
        )
        if taken := (await session.scalars(same)).one_or_none():
            raise DeploymentNameTaken(deployment.name, taken)
        session.add(deployment)
        await session.flush()

    def _add_revision(
        self,
        session: WriteSession,
        deployment: Deployment,
        number: int,
        values: dict[str, Any],
        operation: Operation,
        reason: str,
    ) -> None:
        session.add(
            DeploymentRevision(
                deployment_id=deployment.id,
                number=number,
                config=deployment.config,
                values=values,
                actor=operation.actor,
                reason=reason,
                operation_id=operation.id,
            )
        )

    async def _audit(
        self, session: WriteSession, actor: str, action: str, deployment: Deployment, **facts: str
    ) -> None:
        await audit.record(
            session,
            actor=actor,
            action=action,
            subject_type="deployment",
            subject_id=deployment.id,
            subject_name=deployment.name,
            facts=facts,
        )


_KINDS: Mapping[str, tuple[Sequence[Step], Workflow]] = {
    "deploy_model": (workflows.DEPLOY_STEPS, refs.DEPLOY_MODEL),
    "scale_deployment": (workflows.CHANGE_STEPS, refs.CHANGE_DEPLOYMENT),
    "update_deployment": (workflows.CHANGE_STEPS, refs.CHANGE_DEPLOYMENT),
    DELETION: (workflows.DELETE_STEPS, refs.DELETE_DEPLOYMENT),
}
