"""A cluster's status moves only as the table says."""

import pytest

from budcluster.cluster.errors import IllegalClusterMove
from budcluster.cluster.lifecycle import MOVES, move
from budcluster.cluster.models import Cluster, ClusterStatus


@pytest.mark.parametrize("present", list(ClusterStatus))
@pytest.mark.parametrize("wanted", list(ClusterStatus))
def test_a_status_moves_when_and_only_when_the_table_allows_it(present: ClusterStatus, wanted: ClusterStatus) -> None:
    cluster = Cluster(name="lab", status=present)
    if wanted in MOVES[present]:
        move(cluster, wanted)
        assert cluster.status is wanted
        return
    with pytest.raises(IllegalClusterMove) as refusal:
        move(cluster, wanted)
    assert cluster.status is present
    assert refusal.value.extensions["allowed_statuses"] == sorted(MOVES[present])


def test_nothing_but_failing_leads_out_of_deletion() -> None:
    assert MOVES[ClusterStatus.DELETING] == {ClusterStatus.ERROR}
