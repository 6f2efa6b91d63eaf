"""How a deployment's status may change. Every change goes through `move`."""

from typing import Final

from budcluster.deployment.errors import IllegalDeploymentMove
from budcluster.deployment.models import Deployment
from budcluster.deployment.models import DeploymentStatus as S

MOVES: Final[dict[S, frozenset[S]]] = {
    S.PENDING: frozenset({S.DEPLOYING, S.FAILED, S.DELETING}),
    S.DEPLOYING: frozenset({S.RUNNING, S.PARKED, S.FAILED, S.DELETING}),
    S.RUNNING: frozenset({S.UPDATING, S.PARKED, S.FAILED, S.DELETING}),
    S.UPDATING: frozenset({S.RUNNING, S.PARKED, S.FAILED, S.DELETING}),
    S.PARKED: frozenset({S.UPDATING, S.RUNNING, S.FAILED, S.DELETING}),
    S.FAILED: frozenset({S.PENDING, S.DEPLOYING, S.UPDATING, S.RUNNING, S.PARKED, S.DELETING}),
    S.DELETING: frozenset({S.RUNNING, S.PARKED, S.FAILED}),
}
"""Legal moves. FAILED to RUNNING is healing by itself.

A deleted deployment's row is gone; out of DELETING comes one whose deletion failed.
"""


def move(deployment: Deployment, wanted: S) -> None:
    """Change the status. Moving to the present one changes nothing. Raises IllegalDeploymentMove."""
    present = deployment.status
    if wanted is present:
        return
    if wanted not in MOVES[present]:
        raise IllegalDeploymentMove(present, wanted, sorted(MOVES[present]))
    deployment.status = wanted
