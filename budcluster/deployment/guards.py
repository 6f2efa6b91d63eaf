"""What deployments tell other features: who is on a cluster, and who works with a credential."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from budcluster.credentials.services import User
from budcluster.deployment.models import Deployment, DeploymentRevision
from budcluster.kit.database import ReadSession
from budcluster.operations.models import FINISHED, Operation


class DeploymentsOnCluster:
    """Implements `cluster.adoption.DeletionGuard`."""

    async def occupants(self, session: ReadSession, cluster_id: UUID) -> Sequence[str]:
        """Names of the cluster's deployments, whatever their status."""
        mine = select(Deployment.name).where(Deployment.cluster_id == cluster_id)
        return (await session.scalars(mine.order_by(Deployment.name))).all()


class DeploymentsWithCredential:
    """Implements `credentials.services.UsageGuard`."""

    async def users_of(self, session: ReadSession, credential_id: UUID) -> Sequence[User]:
        """Deployments that name the credential as they are meant to run, or in what running work may go back to."""
        returning = select(DeploymentRevision.deployment_id).join(
            Operation,
            (Operation.subject_id == DeploymentRevision.deployment_id)
            & Operation.status.not_in(FINISHED)
            & DeploymentRevision.number.in_(
                [Operation.payload[name].as_integer() for name in ("revision", "previous_revision")]
            ),
        )
        named = or_(
            _names(Deployment.config, credential_id),
            Deployment.id.in_(returning.where(_names(DeploymentRevision.config, credential_id))),
        )
        rows = await session.execute(select(Deployment.id, Deployment.name).where(named).order_by(Deployment.name))
        return [User("deployment", row.id, row.name) for row in rows]


def _names(config: InstrumentedAttribute[dict[str, Any]], credential_id: UUID) -> ColumnElement[bool]:
    wanted = str(credential_id)
    return or_(
        config.contains({"hugging_face_credential_id": wanted}),
        config.contains({"registry_credential_id": wanted}),
        config.contains({"secrets": [{"credential_id": wanted}]}),
    )
