"""What a caller chose for a cluster when it was onboarded; kept in `Cluster.settings`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from budcluster.cluster.models import Cluster, ClusterProvider
from budcluster.hardware.addons import Platform
from budcluster.hardware.reading.profile import Sharing


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

    def changed(self, choices: Mapping[str, Any]) -> "ClusterOptions":
        """These options with some chosen anew, by name; the others stay."""
        return ClusterOptions.model_validate({**self.model_dump(), **choices})

    def changes_gpus_of(self, present: "ClusterOptions") -> bool:
        """Whether going from `present` to these changes how pods get GPUs."""
        if not self.manage_addons:
            return False
        ways = [(options.manage_addons, options.gpu_sharing, options.replicas_per_gpu) for options in (self, present)]
        return ways[0] != ways[1]

    def as_settings(self) -> dict[str, Any]:
        """As kept in the row."""
        return self.model_dump(mode="json")


PLATFORMS = {
    ClusterProvider.AWS_EKS: Platform.EKS,
    ClusterProvider.AZURE_AKS: Platform.AKS,
    ClusterProvider.ON_PREMISES: Platform.OTHER,
}
"""Whose node images the machines run."""
