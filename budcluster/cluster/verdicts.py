"""Which failures of the outside world are worth trying again, and which are final."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from budcluster.cluster.access import NoCredential
from budcluster.durable.errors import NonRetryableError
from budcluster.hardware.addons import AddonFailed
from budcluster.kit.database import DatabaseUnavailable
from budcluster.kit.errors import DomainError
from budcluster.kube.errors import AddressRefused, CertificateProblem, Forbidden, Rejected, Unauthorized
from budcluster.kube.helm_errors import ChartUnavailable, ObjectRefused, OwnedByAnother, RenderFailed
from budcluster.kube.playbooks import AnsibleMissing, PlaybookMissing
from budcluster.kube.refusals import KubeconfigRefused
from budcluster.provisioning.adoption import VersionRefused
from budcluster.provisioning.ansible.onboard import NamesTaken
from budcluster.provisioning.permissions import PermissionsMissing

FINAL: Final = (
    AddonFailed,
    AddressRefused,
    AnsibleMissing,
    CertificateProblem,
    ChartUnavailable,
    DomainError,
    Forbidden,
    KubeconfigRefused,
    NamesTaken,
    NoCredential,
    ObjectRefused,
    OwnedByAnother,
    PermissionsMissing,
    PlaybookMissing,
    Rejected,
    RenderFailed,
    Unauthorized,
    VersionRefused,
)
"""Trying again changes nothing: somebody has to do something first."""


@contextmanager
def verdicts() -> Iterator[None]:
    """Raises NonRetryableError for what is final; everything else passes and is tried again."""
    try:
        yield
    except DatabaseUnavailable:
        raise
    except FINAL as error:
        raise NonRetryableError(error.detail if isinstance(error, DomainError) else str(error)) from error
