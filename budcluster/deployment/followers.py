"""Keeps deployments in step with their operations, in the transactions that end those."""

from typing import Any, Final

import structlog

from budcluster.audit import services as audit
from budcluster.deployment import capacity, refs, repository
from budcluster.deployment.admission import Admission
from budcluster.deployment.contracts import ReleasePayload
from budcluster.deployment.errors import DeploymentIsBeingDeleted, DeploymentNotFound
from budcluster.deployment.intent import require_room
from budcluster.deployment.lifecycle import move
from budcluster.deployment.models import Deployment, DeploymentRevision, DeploymentStatus
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import context_of
from budcluster.deployment.records import endpoints_of
from budcluster.kit.clock import Clock
from budcluster.kit.database import WriteSession
from budcluster.operations.errors import OperationNotRetryable
from budcluster.operations.models import Operation, OperationStatus, OperationStep
from budcluster.operations.services import launch_payload

log = structlog.get_logger(__name__)

_UNTOUCHED: Final = "The deletion failed before it removed anything: "


class DeployFollower:
    """The first start of a deployment."""

    def __init__(self, clock: Clock, admission: Admission) -> None:
        self._clock = clock
        self._admission = admission

    async def finished(self, session: WriteSession, operation: Operation) -> None:
        """RUNNING when it serves; else FAILED with the cause, and nothing of it is left in the cluster."""
        deployment = await _row(session, operation)
        if deployment is None:
            return
        if deployment.status is DeploymentStatus.DELETING:
            await _note_what_stays(session, deployment, operation)
            return
        if operation.status is OperationStatus.SUCCEEDED:
            _note_answer(deployment)
            _settle(deployment)
            deployment.error = deployment.diagnosis = None
        else:
            move(deployment, DeploymentStatus.FAILED)
            deployment.error = error_of(operation, self._clock)
            deployment.servable, deployment.replicas_ready, deployment.endpoints = False, 0, []
        log.info("deployment.first_start_ended", deployment_id=str(deployment.id), status=deployment.status.value)

    async def reopened(self, session: WriteSession, operation: Operation) -> None:
        """DEPLOYING again, if there is still room: another deployment may have taken the place meanwhile.

        Not PENDING, which the first step ends: where that is done already, a retry goes on behind it.

        Raises NoCapacity, ClusterNotReady, OperationNotRetryable for one that came up by itself.
        """
        deployment = await _reopened(session, operation)
        if deployment.status is not DeploymentStatus.FAILED:
            raise OperationNotRetryable(f"{deployment.name} came up by itself and is {deployment.status}: change that.")
        payload = ReleasePayload.model_validate(launch_payload(operation))
        await _require_room(self._admission, session, deployment, payload)
        move(deployment, DeploymentStatus.DEPLOYING)
        deployment.error = deployment.diagnosis = None


class ChangeFollower:
    """Scaling, changing and going back."""

    def __init__(self, clock: Clock, admission: Admission) -> None:
        self._clock = clock
        self._admission = admission

    async def finished(self, session: WriteSession, operation: Operation) -> None:
        """RUNNING or PARKED as wanted; after a failure what was before, with the error noted."""
        deployment = await _row(session, operation)
        if deployment is None:
            return
        if deployment.status is DeploymentStatus.DELETING:
            await _note_what_stays(session, deployment, operation)
            return
        if operation.status is OperationStatus.SUCCEEDED:
            _note_answer(deployment)
            deployment.error = deployment.diagnosis = None
        else:
            payload = ReleasePayload.model_validate(launch_payload(operation))
            before = await _point_to(session, deployment, payload.previous_revision, payload.previous_replicas)
            if _has_installed(operation) or deployment.endpoints:
                # The new revision may have answered before the operation was cut off and cancelled.
                deployment.half_removed = False
                deployment.endpoints = endpoints_of(deployment.helm_release, deployment.namespace, before.values)
            elif deployment.half_removed:
                # What a failed deletion has left is there as before, and its cause is still the one to know.
                deployment.servable = False
                move(deployment, DeploymentStatus.FAILED)
                return
            deployment.error = error_of(operation, self._clock)
        _settle(deployment)
        if deployment.status is not DeploymentStatus.FAILED:
            deployment.diagnosis = None
        log.info("deployment.change_ended", deployment_id=str(deployment.id), status=deployment.status.value)

    async def reopened(self, session: WriteSession, operation: Operation) -> None:
        """UPDATING again, to what was wanted, if there is room for it. Raises NoCapacity, ClusterNotReady."""
        deployment = await _reopened(session, operation)
        payload = ReleasePayload.model_validate(launch_payload(operation))
        await _require_room(self._admission, session, deployment, payload)
        await _point_to(session, deployment, payload.revision, payload.replicas)
        move(deployment, DeploymentStatus.UPDATING)


class RemovalFollower:
    """The end of a deployment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def finished(self, session: WriteSession, operation: Operation) -> None:
        """The row goes when nothing of it is left in the cluster; the audit trail keeps that it was.

        Otherwise it stands as before, if the deletion had not begun to remove anything, and one that never came up
        keeps the cause of that; else nothing is promised until it is brought back.
        """
        deployment = await _row(session, operation)
        if deployment is None:
            return
        if operation.status is OperationStatus.SUCCEEDED:
            await audit.record(
                session, actor=operation.actor, action="deployment.deleted", subject_type="deployment",
                subject_id=deployment.id, subject_name=deployment.name,
                facts={"cluster_id": str(deployment.cluster_id), "model": deployment.model},
            )  # fmt: skip
            await session.delete(deployment)
            return
        error = error_of(operation, self._clock)
        if deployment.half_removed:
            move(deployment, DeploymentStatus.FAILED)
            deployment.servable, deployment.endpoints = False, []
        elif deployment.endpoints:
            _settle(deployment)
            error = _untouched(error, before={})
        else:
            move(deployment, DeploymentStatus.FAILED)
            error = _untouched(error, before=deployment.error or {})
        deployment.error = error

    async def reopened(self, session: WriteSession, operation: Operation) -> None:
        """DELETING again."""
        deployment = await _row(session, operation)
        if deployment is None:
            raise DeploymentNotFound(operation.subject_id)
        move(deployment, DeploymentStatus.DELETING)


async def _row(session: WriteSession, operation: Operation) -> Deployment | None:
    return await repository.find_locked(session, operation.subject_id)


async def _reopened(session: WriteSession, operation: Operation) -> Deployment:
    deployment = await _row(session, operation)
    if deployment is None:
        raise DeploymentNotFound(operation.subject_id)
    if deployment.status is DeploymentStatus.DELETING:
        raise DeploymentIsBeingDeleted(deployment.name)
    return deployment


async def _require_room(
    admission: Admission, session: WriteSession, deployment: Deployment, payload: ReleasePayload
) -> None:
    revision = await repository.get_revision(session, deployment.id, payload.revision)
    cluster = await admission.ready_cluster(session, deployment.cluster_id)
    await capacity.hold(session, cluster.id)
    fit = await admission.fit_of(session, cluster, deployment, revision, replicas=payload.replicas)
    require_room(fit, force=payload.force)


async def _point_to(session: WriteSession, deployment: Deployment, revision: int, replicas: int) -> DeploymentRevision:
    found = await repository.get_revision(session, deployment.id, revision)
    deployment.revision, deployment.replicas_desired = revision, replicas
    deployment.config = {**found.config, "replicas": max(replicas, 1)}
    config = DeploymentConfig.model_validate(deployment.config)
    deployment.max_model_len = context_of(config, capacity.facts_of(deployment)).length
    return found


async def _note_what_stays(session: WriteSession, deployment: Deployment, operation: Operation) -> None:
    """A deletion has ended other work: should it fail, this is what it finds in the cluster."""
    if operation.status is OperationStatus.SUCCEEDED:
        _note_answer(deployment)
        return
    payload = ReleasePayload.model_validate(launch_payload(operation))
    if await _has_begun(session, operation, refs.WRITE_SECRETS.name):
        deployment.half_removed, deployment.endpoints = True, []
    if payload.previous_revision and not await _has_begun(session, operation, refs.INSTALL_RELEASE.name):
        await _point_to(session, deployment, payload.previous_revision, payload.previous_replicas)


async def _has_begun(session: WriteSession, work: Operation, step: str) -> bool:
    """Whether a step of the work may have left something in the cluster."""
    if work.attempt > 1:
        return True  # what an earlier attempt could not take back is not known any more
    row = await session.get(OperationStep, (work.id, step))
    return row is not None and row.started_at is not None


def _has_installed(change: Operation) -> bool:
    """Whether a change that failed had put its release into the cluster, be it undone or left."""
    result = change.result or {}
    return refs.INSTALL_RELEASE.name in (*result.get("undone", ()), *result.get("left", ()))


def _note_answer(deployment: Deployment) -> None:
    """Every copy was ready and one answered just now: what was written last may be older, after an outage for one."""
    deployment.half_removed = False
    deployment.replicas_ready = deployment.replicas_desired
    deployment.servable = deployment.replicas_desired > 0


def _settle(deployment: Deployment) -> None:
    """The status that fits what was last seen of the copies."""
    if deployment.replicas_desired == 0:
        move(deployment, DeploymentStatus.PARKED)
    else:
        move(deployment, DeploymentStatus.RUNNING if deployment.servable else DeploymentStatus.FAILED)


def _untouched(error: dict[str, Any], *, before: dict[str, Any]) -> dict[str, Any]:
    """The error of a deletion that failed early: by itself, or said behind what had failed before."""
    cause = before.get("detail", "").partition(_UNTOUCHED)[0].rstrip()
    if not cause:
        return {**error, "detail": f"{_UNTOUCHED}{error['detail']}"}
    newest = {name: error[name] for name in ("next_step", "operation_id")}
    return {**before, **newest, "detail": f"{cause} {_UNTOUCHED}{error['detail']}"}


def error_of(operation: Operation, clock: Clock) -> dict[str, Any]:
    """A deployment's error from the operation that failed or was cancelled."""
    cause = operation.error or {}
    ended = "was cancelled" if operation.status is OperationStatus.CANCELLED else "failed"
    return {
        "type": f"/problems/{cause.get('type', 'operation-failed')}",
        "detail": cause.get("detail", f"The operation {ended}."),
        "next_step": cause.get("next_step"),
        "step": cause.get("step"),
        "since": clock.now().isoformat(),
        "operation_id": str(operation.id),
        "left": (operation.result or {}).get("left", []),
    }
