"""All add-ons that the service knows."""

from dataclasses import dataclass
from typing import Self

from budcluster.config import AddonSettings
from budcluster.hardware import gpu_operator, hami, nfd, prometheus
from budcluster.hardware.addons import Addon


@dataclass(frozen=True, slots=True)
class Catalogue:
    """One of each, in the versions that the settings name."""

    prometheus: Addon
    nfd: Addon
    gpu_operator: Addon
    hami: Addon

    @classmethod
    def of(cls, settings: AddonSettings) -> Self:
        """As the settings say."""
        return cls(
            prometheus=prometheus.addon(settings),
            nfd=nfd.addon(settings),
            gpu_operator=gpu_operator.addon(settings),
            hami=hami.addon(settings),
        )

    @property
    def last_first(self) -> tuple[Addon, ...]:
        """In the reverse order of installation."""
        return (self.hami, self.gpu_operator, self.nfd, self.prometheus)
