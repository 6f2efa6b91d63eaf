"""What a caller chose for a cluster when it was onboarded; kept in `Cluster.settings`."""

from pydantic import BaseModel, ConfigDict

from budcluster.cluster.models import Cluster, ClusterProvider
from budcluster.hardware.addons import Platform
from budcluster.hardware.profile import Sharing


class ClusterOptions(BaseModel):
    """The choices, with the defaults of the product."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    manage_addons: bool = True
    """False gives the service a narrow role: it serves models and installs nothing."""
    gpu_sharing: Sharing = Sharing.HAMI
    replicas_per_gpu: int = 4
    """Shares of a GPU under time-slicing."""
    keep_upload: bool = False
    """True keeps the uploaded kubeconfig beside the service's own credential."""

    @classmethod
    def of(cls, cluster: Cluster) -> "ClusterOptions":
        """The choices of a cluster."""
        return cls.model_validate(cluster.settings or {})


PLATFORMS = {
    ClusterProvider.AWS_EKS: Platform.EKS,
    ClusterProvider.AZURE_AKS: Platform.AKS,
    ClusterProvider.ON_PREMISES: Platform.OTHER,
}
"""Whose node images the machines run."""
