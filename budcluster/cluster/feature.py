"""What the cluster feature brings to long work: workflows, activities, followers; and to the hardware routes."""

from uuid import UUID

from sqlalchemy import select

from budcluster.cluster import refs, workflows
from budcluster.cluster.access import ClusterAccess
from budcluster.cluster.activities import OnboardingActivities
from budcluster.cluster.addon_activities import AddonActivities
from budcluster.cluster.addon_steps import AddonSteps
from budcluster.cluster.adoption import ClusterWork
from budcluster.cluster.deletion import DeletionActivities
from budcluster.cluster.errors import AddonsNotManaged, ClusterNotFound, GpusInUse
from budcluster.cluster.followers import DeletionFollower, OnboardingFollower, SharingFollower
from budcluster.cluster.models import Cluster
from budcluster.cluster.options import ClusterOptions
from budcluster.cluster.sharing_activities import SharingActivities
from budcluster.config import Settings
from budcluster.credentials.vault import Vault
from budcluster.hardware.catalogue import Catalogue
from budcluster.hardware.gpu_holders import gpu_holders
from budcluster.hardware.reading.profile import Sharing
from budcluster.kit.clock import Clock
from budcluster.kit.database import Database, WriteSession
from budcluster.operations.journal import Journals
from budcluster.operations.long_work import Feature


def cluster_feature(
    settings: Settings, database: Database, access: ClusterAccess, vault: Vault, journals: Journals, clock: Clock
) -> Feature:
    """Everything that long work on clusters needs."""
    catalogue = Catalogue.of(settings.addons)
    steps = AddonSteps(database, access, journals, settings.addons)
    addons = AddonActivities(steps, catalogue, detection_timeout_s=settings.nfd_detection_timeout)
    sharing = SharingActivities(steps, catalogue)
    namespace = settings.deployments.namespace
    onboarding = OnboardingActivities(
        database,
        access,
        vault,
        journals,
        clock,
        addons=catalogue.last_first[::-1],
        models_namespace=namespace,
    )
    deletion = DeletionActivities(database, access, journals, steps, catalogue, models_namespace=namespace)
    return Feature(
        workflows=[
            (refs.ONBOARD_CLUSTER, workflows.onboard_cluster),
            (refs.DETECT_HARDWARE, workflows.detect_hardware),
            (refs.SHARE_GPUS, workflows.share_gpus),
            (refs.DELETE_CLUSTER, workflows.delete_cluster),
        ],
        activities=[
            (refs.CHECK_ACCESS, onboarding.check_access),
            (refs.INSPECT_CLUSTER, onboarding.inspect_cluster),
            (refs.PREPARE_CLUSTER, onboarding.prepare_cluster),
            (refs.INSTALL_PROMETHEUS, addons.install_prometheus),
            (refs.INSTALL_NFD, addons.install_nfd),
            (refs.DETECT_NODES, addons.detect_nodes),
            (refs.INSTALL_GPU_OPERATOR, sharing.install_gpu_operator),
            (refs.INSTALL_HAMI, sharing.install_hami),
            (refs.ALIGN_GPU_OPERATOR, sharing.align_gpu_operator),
            (refs.CHANGE_SHARING, sharing.change_sharing),
            (refs.PUT_SHARING_BACK, sharing.put_sharing_back),
            (refs.READ_HARDWARE, onboarding.read_hardware),
            (refs.REMOVE_ADDONS, deletion.remove_addons),
            (refs.LEAVE_CLUSTER, deletion.leave_cluster),
        ],
        followers={
            "onboard_cluster": OnboardingFollower(clock),
            "share_gpus": SharingFollower(),
            "delete_cluster": DeletionFollower(clock),
        },
    )


class HardwareRequests:
    """Implements `hardware.changes.HardwareWork`."""

    def __init__(self, work: ClusterWork) -> None:
        self._work = work

    async def request_detection(self, session: WriteSession, cluster_id: UUID, *, actor: str) -> UUID:
        """Ask for a fresh look at the hardware."""
        _, operation = await self._work.detect_hardware(session, cluster_id, actor=actor)
        return operation.id

    async def request_sharing(
        self, session: WriteSession, cluster_id: UUID, *, mode: Sharing, replicas: int, force: bool, actor: str
    ) -> UUID:
        """Ask for another way of handing out GPUs. Raises GpusInUse unless forced, and AddonsNotManaged."""
        cluster = (await session.scalars(select(Cluster).where(Cluster.id == cluster_id))).one_or_none()
        if cluster is None:
            raise ClusterNotFound(cluster_id)
        present = ClusterOptions.of(cluster)
        if not present.manage_addons:
            raise AddonsNotManaged(cluster.name)
        options = present.model_copy(update={"gpu_sharing": mode, "replicas_per_gpu": replicas})
        if options != present and not force and (pods := await gpu_holders(session, cluster_id)):
            raise GpusInUse(pods)
        _, operation = await self._work.share_gpus(session, cluster_id, options=options, force=force, actor=actor)
        return operation.id
