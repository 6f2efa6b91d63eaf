"""What the service makes in a cluster for itself, and how it marks it. `playbooks/onboard.yml` has the same names."""

from typing import Final
from uuid import UUID

OWNED: Final = {"app.kubernetes.io/managed-by": "budcluster"}
"""Label of every object that the service makes by itself."""
LABEL_DEPLOYMENT: Final = "budcluster.io/deployment-id"
"""Label of everything in a cluster that belongs to a deployment."""
SYSTEM_NAMESPACE: Final = "budcluster-system"
ACCOUNT: Final = "budcluster"
"""The service account, and the ClusterRoleBinding that makes it an administrator."""
NARROW: Final = "budcluster-narrow"
"""The roles and bindings that make it a server of models instead."""


def token_secret(cluster_id: UUID | str) -> str:
    """Name of the Secret with the account's token, for whoever manages the cluster under this id."""
    return f"{ACCOUNT}-token-{cluster_id}"
