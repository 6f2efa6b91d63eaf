"""How a cluster's status may change. Every change goes through `move`."""

from typing import Final

from budcluster.cluster.errors import IllegalClusterMove
from budcluster.cluster.models import Cluster
from budcluster.cluster.models import ClusterStatus as S

MOVES: Final[dict[S, frozenset[S]]] = {
    S.PROVISIONING: frozenset({S.READY, S.ERROR, S.DELETING}),
    S.READY: frozenset({S.PROVISIONING, S.ERROR, S.DELETING}),
    S.ERROR: frozenset({S.PROVISIONING, S.READY, S.DELETING}),
    S.DELETING: frozenset({S.ERROR}),
}
"""Legal moves. READY to PROVISIONING is onboarding anew; a deleted cluster's row is gone, so DELETING only fails."""


def move(cluster: Cluster, to: S) -> None:
    """Change the status. Raises IllegalClusterMove."""
    allowed = MOVES[cluster.status]
    if to not in allowed:
        raise IllegalClusterMove(cluster.status, to, sorted(allowed))
    cluster.status = to
