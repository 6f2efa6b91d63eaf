"""What becomes of a cluster's row when long work on it ends, or is taken up again."""

from typing import Any, Final

import structlog
from sqlalchemy import select

from budcluster.audit import services as audit
from budcluster.cluster.errors import ClusterNotFound
from budcluster.cluster.lifecycle import move
from budcluster.cluster.models import Cluster, ClusterStatus
from budcluster.cluster.options import ClusterOptions
from budcluster.cluster.uploads import forget_upload
from budcluster.kit.clock import Clock
from budcluster.kit.database import WriteSession
from budcluster.operations.models import Operation, OperationStatus, OperationStep, StepStatus

log = structlog.get_logger(__name__)

WAS_READY: Final = "was_ready"
"""In the payload of an onboarding: the cluster was in service when it was asked for."""
CHOICES: Final = "choices"
"""In the payload of an onboarding, or of a change of sharing: the options that were named."""
OPTIONS_BEFORE: Final = "options_before"
"""In the payload of both: the options as they were, for one that comes to nothing."""
_LOOKING_ONLY: Final = ("check_access", "inspect_cluster")
"""Steps of onboarding that change nothing, neither in the cluster nor in the credential that is used."""

_CANCELLED: Final = {
    "type": "operation-cancelled",
    "detail": "The operation was cancelled before it was done.",
    "next_step": "Onboard the cluster again to go on, or delete it.",
}


class OnboardingFollower:
    """Keeps a cluster's status in step with its onboarding."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def finished(self, session: WriteSession, operation: Operation) -> None:
        """READY when it succeeded, ERROR with the cause otherwise; a cluster that is being deleted stays so.

        An onboarding that ended before it changed anything leaves a known cluster as it was: its own credential is the
        one from before, so one in service stays in service, with the options that it was prepared for. The operation
        tells what was wrong.

        The uploaded kubeconfig stays only for a retry that still needs it, unless it was to be kept.
        """
        cluster = await session.get(Cluster, operation.subject_id, with_for_update=True)
        if cluster is None:
            return
        if not ClusterOptions.of(cluster).keep_upload and await _is_prepared(session, operation):
            await forget_upload(session, cluster.id)
        if cluster.status is not ClusterStatus.PROVISIONING:
            return
        is_done = operation.status is OperationStatus.SUCCEEDED
        is_untouched = not is_done and not await _has_changed_something(session, operation)
        if is_untouched and cluster.kubeconfig_encrypted is not None:
            cluster.settings = operation.payload.get(OPTIONS_BEFORE, cluster.settings)
        if is_done or (is_untouched and operation.payload.get(WAS_READY)):
            move(cluster, ClusterStatus.READY)
            cluster.error = None
        else:
            move(cluster, ClusterStatus.ERROR)
            cluster.error = error_of(operation, self._clock)
        if is_done:
            operation.result = {
                "node_count": cluster.node_count,
                "gpu_count": cluster.gpu_count,
                "adoption_report": cluster.adoption_report,
            }
        outcome = audit.Outcome.SUCCEEDED if is_done else audit.Outcome.FAILED
        await record(session, operation.actor, "cluster.onboarding_ended", cluster, outcome=outcome)
        log.info("cluster.onboarding_ended", cluster_id=str(cluster.id), status=cluster.status)

    async def reopened(self, session: WriteSession, operation: Operation) -> None:
        """Back to PROVISIONING, with the options that were asked for."""
        cluster = await session.get(Cluster, operation.subject_id, with_for_update=True)
        if cluster is None:
            raise ClusterNotFound(operation.subject_id)
        operation.payload = {**operation.payload, **standing(cluster)}
        cluster.settings = ClusterOptions.of(cluster).changed(operation.payload.get(CHOICES, {})).as_settings()
        if cluster.status is not ClusterStatus.PROVISIONING:
            move(cluster, ClusterStatus.PROVISIONING)
            cluster.error = None


class SharingFollower:
    """Keeps a cluster's options in step with how its GPUs are handed out: later work must not do what was refused."""

    async def finished(self, session: WriteSession, operation: Operation) -> None:
        """The options from before, unless it succeeded."""
        cluster = await session.get(Cluster, operation.subject_id, with_for_update=True)
        if cluster is not None and operation.status is not OperationStatus.SUCCEEDED:
            cluster.settings = operation.payload.get(OPTIONS_BEFORE, cluster.settings)

    async def reopened(self, session: WriteSession, operation: Operation) -> None:
        """The options that were asked for."""
        cluster = await session.get(Cluster, operation.subject_id, with_for_update=True)
        if cluster is None:
            raise ClusterNotFound(operation.subject_id)
        present = ClusterOptions.of(cluster)
        operation.payload = {**operation.payload, OPTIONS_BEFORE: present.as_settings()}
        cluster.settings = present.changed(operation.payload.get(CHOICES, {})).as_settings()


class DeletionFollower:
    """Removes the row once everything of ours is out of the cluster, or keeps it with the cause."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def finished(self, session: WriteSession, operation: Operation) -> None:
        """The row goes when the work succeeded."""
        cluster = await session.get(Cluster, operation.subject_id, with_for_update=True)
        if cluster is None:
            return
        if operation.status is OperationStatus.SUCCEEDED:
            await record(session, operation.actor, "cluster.deleted", cluster)
            await session.delete(cluster)
        else:
            move(cluster, ClusterStatus.ERROR)
            cluster.error = error_of(operation, self._clock)
            await record(session, operation.actor, "cluster.deleted", cluster, outcome=audit.Outcome.FAILED)

    async def reopened(self, session: WriteSession, operation: Operation) -> None:
        """Back to DELETING."""
        cluster = await session.get(Cluster, operation.subject_id, with_for_update=True)
        if cluster is None:
            raise ClusterNotFound(operation.subject_id)
        if cluster.status is not ClusterStatus.DELETING:
            move(cluster, ClusterStatus.DELETING)


def standing(cluster: Cluster) -> dict[str, Any]:
    """What the payload of an onboarding keeps of the cluster as it was."""
    return {
        WAS_READY: cluster.status is ClusterStatus.READY,
        OPTIONS_BEFORE: ClusterOptions.of(cluster).as_settings(),
    }


async def _is_prepared(session: WriteSession, operation: Operation) -> bool:
    """Whether the service has a credential of its own, so that no step needs the uploaded one any more."""
    step = await session.get(OperationStep, (operation.id, "prepare_cluster"))
    return step is not None and step.status is StepStatus.SUCCEEDED


async def _has_changed_something(session: WriteSession, operation: Operation) -> bool:
    begun = select(OperationStep.name).where(
        OperationStep.operation_id == operation.id,
        OperationStep.started_at.is_not(None),
        OperationStep.name.not_in(_LOOKING_ONLY),
    )
    return await session.scalar(begun.limit(1)) is not None


async def record(
    session: WriteSession,
    actor: str,
    action: str,
    cluster: Cluster,
    *,
    outcome: audit.Outcome = audit.Outcome.SUCCEEDED,
    facts: dict[str, str] | None = None,
) -> None:
    """Note in the audit trail what was asked of a cluster, or became of it."""
    await audit.record(
        session,
        actor=actor,
        action=action,
        subject_type="cluster",
        subject_id=cluster.id,
        subject_name=cluster.name,
        outcome=outcome,
        facts=facts,
    )


def error_of(operation: Operation, clock: Clock) -> dict[str, object]:
    """A cluster's error from the operation that failed."""
    cause = operation.error or _CANCELLED
    return {
        "type": f"/problems/{cause.get('type', 'operation-failed')}",
        "detail": cause.get("detail", "The operation failed."),
        "next_step": cause.get("next_step"),
        "step": cause.get("step"),
        "since": clock.now().isoformat(),
        "operation_id": str(operation.id),
    }
