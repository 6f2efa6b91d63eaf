"""The idea of an add-on: what it is called, which chart it is, what it is told, and how to see somebody else's.

The add-ons themselves are in `nfd`, `gpu_operator`, `hami` and `prometheus`; `installer` puts them into a cluster.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from budcluster.hardware.models import AddonName
from budcluster.hardware.reading.profile import Sharing
from budcluster.kube.helm import ChartRef
from budcluster.kube.versions import Version


class Platform(StrEnum):
    """Who runs the nodes: decides which parts of a GPU stack the node images bring."""

    EKS = "eks"
    AKS = "aks"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the values of an add-on depend on."""

    platform: Platform
    server: Version
    sharing: Sharing = Sharing.HAMI
    """How GPUs are meant to be handed out: HAMI, TIME_SLICING or NONE."""
    replicas_per_gpu: int = 4
    """Shares of a time-sliced GPU."""
    plugin: bool = False
    """Whether the operator's own plugin is to offer nvidia.com/gpu: only where nobody else does."""


class AddonFailed(Exception):
    """An add-on does not work, and trying again at once will not change that; the message says why."""


@dataclass(frozen=True)
class Addon:
    """One add-on."""

    name: AddonName
    title: str
    release: str
    namespace: str
    chart: str
    version: str
    repository: str
    """Where its authors publish it: a repository's URL, or an `oci://` prefix."""
    values: Callable[[Surroundings], Mapping[str, Any]]
    marks: tuple[str, ...] = field(default=())
    """Label selectors of workloads that show an installation of any kind."""
    privileged: bool = False
    """Whether its pods need a namespace without pod security limits."""
    image_advice: Mapping[str, str] = field(default_factory=dict)
    """What to do where an image with this in its name does not exist."""
    needs_node: bool = False
    """Whether its chart runs Jobs before it is installed: without a node Helm would wait for them in vain."""

    def chart_ref(self, mirror: str | None) -> ChartRef:
        """Where to take the chart from: its authors, or a mirror that holds all of them."""
        source = mirror or self.repository
        if source.startswith("oci://"):
            return ChartRef(f"{source.rstrip('/')}/{self.chart}", self.version)
        if source.startswith(("http://", "https://")):
            return ChartRef(self.chart, self.version, repository=source)
        return ChartRef(f"{source.rstrip('/')}/{self.chart}", self.version)
