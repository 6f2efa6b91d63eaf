"""What the deployment feature brings to long work: workflows, activities, followers."""

from budcluster.cluster.access import ClusterAccess
from budcluster.config import Settings
from budcluster.credentials.services import CredentialService
from budcluster.deployment import refs, workflows
from budcluster.deployment.activities import ReleaseActivities
from budcluster.deployment.admission import Admission
from budcluster.deployment.followers import ChangeFollower, DeployFollower, RemovalFollower
from budcluster.deployment.helm_utils import ReleaseLocks
from budcluster.deployment.records import Records
from budcluster.deployment.removal import RemovalActivities
from budcluster.deployment.serving import ServingActivities
from budcluster.deployment.turns import Turns
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database
from budcluster.operations.journal import Journals
from budcluster.operations.long_work import Feature


def deployment_feature(
    settings: Settings,
    database: Database,
    access: ClusterAccess,
    credentials: CredentialService,
    journals: Journals,
    admission: Admission,
    turns: Turns,
    clock: Clock,
) -> Feature:
    """Everything that long work on deployments needs."""
    records = Records(database, clock)
    # Each takes a connection, and whoever holds one asks for another now and then.
    locks = ReleaseLocks(database, at_once=min(settings.kubernetes.max_tools, settings.database.pool_size // 2))
    release = ReleaseActivities(records, access, credentials, database, journals, locks, turns, settings.deployments)
    serving = ServingActivities(records, access, journals, clock)
    removal = RemovalActivities(records, access, journals, locks, settings.deployments)
    changes = ChangeFollower(clock, admission)
    return Feature(
        workflows=[
            (refs.DEPLOY_MODEL, workflows.deploy_model),
            (refs.CHANGE_DEPLOYMENT, workflows.change_deployment),
            (refs.DELETE_DEPLOYMENT, workflows.delete_deployment),
        ],
        activities=[
            (refs.CHECK_PLAN, release.check_plan),
            (refs.PREPARE_NAMESPACE, release.prepare_namespace),
            (refs.WRITE_SECRETS, release.write_secrets),
            (refs.FORGET_SECRETS, release.forget_secrets),
            (refs.RESTORE_SECRETS, release.restore_secrets),
            (refs.INSTALL_RELEASE, release.install_release),
            (refs.WITHDRAW_RELEASE, release.withdraw_release),
            (refs.RESTORE_RELEASE, release.restore_release),
            (refs.WAIT_UNTIL_SERVING, serving.wait_until_serving),
            (refs.SMOKE_TEST, serving.smoke_test),
            (refs.REMOVE_RELEASE, removal.remove_release),
            (refs.VERIFY_REMOVAL, removal.verify_removal),
        ],
        followers={
            "deploy_model": DeployFollower(clock, admission),
            "scale_deployment": changes,
            "update_deployment": changes,
            "delete_deployment": RemovalFollower(clock),
        },
        turns=dict.fromkeys(("deploy_model", "scale_deployment", "update_deployment"), turns.of),
    )
