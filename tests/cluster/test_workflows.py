"""The recipes of long work on clusters, driven without an engine; also as an instance of an older version goes on."""

from uuid import UUID

import pytest

from budcluster.cluster.contracts import SharingPayload
from budcluster.cluster.workflows import share_gpus
from tests.driver import ScriptedContext, ScriptedFailure

PAYLOAD = SharingPayload(operation_id=UUID(int=1), subject_id=UUID(int=2))


@pytest.mark.parametrize(
    ("patches", "calls"),
    [
        ({"put_sharing_back", "align_gpu_operator"}, ["align_gpu_operator", "put_sharing_back"]),
        ({"align_gpu_operator"}, ["align_gpu_operator"]),
        (set(), ["install_gpu_operator"]),
    ],
)
def test_a_change_of_sharing_that_stops_is_taken_back_unless_it_began_before_that_was_known(
    patches: set[str], calls: list[str]
) -> None:
    context = ScriptedContext(patches=frozenset(patches))
    steps = share_gpus(context, PAYLOAD)  # type: ignore[arg-type]
    next(steps)
    steps.send({"goes_on": True})
    steps.throw(ScriptedFailure())
    if "put_sharing_back" in patches:
        steps.send(None)
    assert [name for name, _ in context.calls[1:]] == [*calls, "mark_operation_failed"]
