"""Payloads of megabytes, where the configuration allows them."""

import json
from collections.abc import Iterator

import dapr.ext.workflow as wf
import pytest

from budcluster.durable.sidecar.limits import MIB, Limits
from tests.contracts.workflows.scenarios import World, register
from tests.fixtures.workflows import Backend, embedded_backend


@pytest.fixture
def generous(backend: Backend, request: pytest.FixtureRequest) -> Iterator[Backend]:
    if not backend.is_embedded:
        yield backend
        return
    limits = Limits(payload_bytes=8 * MIB, history_bytes=64 * MIB)
    with embedded_backend(request.getfixturevalue("database_url"), limits) as embedded:
        yield embedded


@pytest.mark.parametrize("size", [pytest.param(3_000_000, id="s25-3MB"), pytest.param(6_000_000, id="s26-6MB")])
def test_a_large_result_completes_when_the_limit_allows_it(generous: Backend, size: int) -> None:
    if size > 4 * MIB and not generous.is_embedded:
        pytest.skip("daprd's default limit is 4 MiB")
    world = World()
    with generous.worker(lambda runtime: register(runtime, world)), generous.client() as client:
        instance_id = client.schedule_new_workflow("sized_text", input=size, instance_id=generous.new_id("sized"))
        state = client.wait_for_workflow_completion(instance_id, timeout_in_seconds=30)
    assert state is not None
    assert state.runtime_status == wf.WorkflowStatus.COMPLETED
    assert json.loads(state.serialized_output) == size
