"""What a row says of its deployment once long work on it has ended badly."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx
import pytest

from budcluster.bootstrap import Service
from budcluster.cluster.access import ClusterAccess
from budcluster.credentials.ring import KeyRing
from budcluster.credentials.vault import Vault
from budcluster.deployment.contracts import RemovalPayload
from budcluster.deployment.helm_utils import ReleaseLocks
from budcluster.deployment.records import Records
from budcluster.deployment.removal import RemovalActivities
from budcluster.durable.errors import NonRetryableError
from budcluster.durable.execution import Execution
from budcluster.kit.clock import SystemClock
from budcluster.kit.database import Database
from budcluster.operations.causes import Cause
from budcluster.operations.models import OperationStatus, StepStatus
from tests.deployment.lot import Lot
from tests.hardware import nodes
from tests.operations.desk import Desk

ELSEWHERE = [{"kind": "ingress", "url": "https://new.example.org/v1"}]
AWAY = Cause(type="unreachable", detail="Nobody answered.", next_step="Retry it.", step="remove_release")
Json = dict[str, Any]


class Outcomes(Lot):
    """Somebody whose long work ends as it is told to."""

    def __init__(self, client: httpx.AsyncClient, database: Database, service: Service) -> None:
        super().__init__(client, database)
        self.desk = Desk(database, service.long_work.operations, service.long_work.journals)
        self.records = Records(database, SystemClock())
        settings, journals = service.edge.settings, service.long_work.journals
        vault = Vault(KeyRing.from_settings(settings), database)
        access = ClusterAccess(database, vault, service.doors, clock=SystemClock(), allow_local=True)
        locks = ReleaseLocks(database, at_once=1)
        self.removal = RemovalActivities(self.records, access, journals, locks, settings.deployments)

    async def answered(self, deployment_id: str) -> None:
        """What the last step notes once a prompt was answered; the operation may yet be cut off there."""
        await self.records.saw(UUID(deployment_id), ready=1)
        await self.records.reached(UUID(deployment_id), ELSEWHERE)

    async def began(self, begun: Json, *steps: str) -> None:
        """These steps of its operation have begun."""
        for step in steps:
            await self.desk.mark(UUID(begun["operation_id"]), step, StepStatus.RUNNING, started_at=SystemClock().now())

    async def withdrawn(self, path: str) -> Json:
        """A deletion that begins to remove it; the answer of its request."""
        begun = dict((await self.ask("DELETE", path)).json())
        await self.records.withdrew(UUID(begun["id"]))
        return begun

    async def ended(self, begun: Json, status: OperationStatus, *undone: str, left: Sequence[str] = ()) -> Json:
        """The deployment after its operation has ended so, and these of its steps were taken back or not."""
        error = AWAY if status is OperationStatus.FAILED else None
        result = {"undone": list(undone), "left": list(left)}
        await self.desk.finish(UUID(begun["operation_id"]), status, error=error, result=result)
        return dict((await self.client.get(f"/deployments/{begun['id']}")).json())


@pytest.fixture
async def lot(client: httpx.AsyncClient, database: Database, service: Service) -> Outcomes:
    lot = Outcomes(client, database, service)
    await lot.prepare([nodes.a100x8()])
    return lot


@pytest.mark.parametrize("status", [OperationStatus.FAILED, OperationStatus.CANCELLED])
async def test_a_first_start_that_ends_badly_promises_no_endpoint(lot: Outcomes, status: OperationStatus) -> None:
    begun = (await lot.create()).json()
    await lot.answered(begun["id"])
    shown = await lot.ended(begun, status)
    assert (shown["status"], shown["servable"], shown["replicas"]["ready"]) == ("FAILED", False, 0)
    assert (shown["endpoints"], shown["error"]["operation_id"]) == ([], begun["operation_id"])
    is_failed = status is OperationStatus.FAILED
    assert shown["error"]["detail"] == (AWAY.detail if is_failed else "The operation was cancelled.")


async def test_a_change_that_ends_badly_leaves_what_its_forerunner_had(lot: Outcomes) -> None:
    path = await lot.served(max_model_len=4096, replicas=2)
    before = (await lot.client.get(path)).json()
    begun = (await lot.ask("PATCH", path, config={"max_model_len": 2048, "ingress_host": "new.example.org"})).json()
    assert (begun["max_model_len"], begun["revision"]) == (2048, 2)
    await lot.answered(begun["id"])
    shown = await lot.ended(begun, OperationStatus.CANCELLED)
    for same in ("config", "max_model_len", "revision", "served_model"):
        assert shown[same] == before[same]
    assert (shown["status"], shown["replicas"]["desired"]) == ("RUNNING", 2)
    assert [one["kind"] for one in shown["endpoints"]] == ["cluster"]


async def test_a_deletion_that_fails_promises_nothing_until_the_release_is_brought_back(lot: Outcomes) -> None:
    path = await lot.served()
    begun = await lot.withdrawn(path)
    shown = await lot.ended(begun, OperationStatus.FAILED)
    assert (shown["status"], shown["servable"], shown["endpoints"]) == ("FAILED", False, [])
    assert (shown["error"]["detail"], shown["error"]["next_step"]) == (AWAY.detail, AWAY.next_step)

    again = await lot.client.patch(path, json={"config": {}})
    assert (again.status_code, again.json()["status"], again.json()["revision"]) == (202, "UPDATING", 2)
    await lot.records.saw(UUID(begun["id"]), ready=1)
    early = await lot.ended(again.json(), OperationStatus.CANCELLED, "write_secrets")
    assert (early["status"], early["servable"], early["endpoints"]) == ("FAILED", False, [])
    assert early["error"] == shown["error"]

    again = await lot.client.patch(path, json={"config": {"max_num_seqs": 8}})
    await lot.answered(begun["id"])
    late = await lot.ended(again.json(), OperationStatus.CANCELLED, "install_release", "write_secrets")
    assert (late["status"], late["error"]["operation_id"]) == ("RUNNING", again.json()["operation_id"])
    assert [one["kind"] for one in late["endpoints"]] == ["cluster"]


@pytest.mark.parametrize(("replicas", "status"), [(2, "RUNNING"), (0, "PARKED")])
async def test_a_change_that_succeeded_has_all_its_copies_whatever_older_sight_was_written_last(
    lot: Outcomes, replicas: int, status: str
) -> None:
    path = await lot.served()
    begun = (await lot.ask("POST", f"{path}/scale", replicas=replicas)).json()
    await lot.records.saw(UUID(begun["id"]), ready=1 if replicas == 0 else 0)
    shown = await lot.ended(begun, OperationStatus.SUCCEEDED)
    assert (shown["status"], shown["servable"]) == (status, replicas > 0)
    assert shown["replicas"] == {"desired": replicas, "ready": replicas}


@pytest.mark.parametrize("ready", [0, 1])
async def test_a_deletion_that_fails_before_it_removes_anything_leaves_the_deployment_as_it_is(
    lot: Outcomes, ready: int
) -> None:
    path = await lot.served(tensor_parallel_size=8)
    before = (await lot.client.get(path)).json()
    begun = (await lot.ask("DELETE", path)).json()
    await lot.records.saw(UUID(begun["id"]), ready=ready)
    shown = await lot.ended(begun, OperationStatus.FAILED)
    assert (shown["status"], shown["servable"]) == (("RUNNING", True) if ready else ("FAILED", False))
    assert shown["endpoints"] == before["endpoints"]
    assert shown["error"]["detail"] == f"The deletion failed before it removed anything: {AWAY.detail}"
    assert (shown["error"]["next_step"], shown["error"]["operation_id"]) == (AWAY.next_step, begun["operation_id"])
    assert (await lot.create(tensor_parallel_size=8)).status_code == 409
    assert (await lot.client.post(f"{path}/scale", json={"replicas": 0})).status_code == 202


async def test_a_parked_deployment_that_a_failed_deletion_did_not_touch_is_parked(lot: Outcomes) -> None:
    path = await lot.served()
    parked = (await lot.client.post(f"{path}/scale", json={"replicas": 0})).json()
    await lot.finish(parked["operation_id"])
    shown = await lot.ended((await lot.ask("DELETE", path)).json(), OperationStatus.FAILED)
    assert shown["status"] == "PARKED"
    assert shown["error"]["detail"].startswith("The deletion failed before it removed anything")


@pytest.mark.parametrize("begun", [[], ["write_secrets"], ["write_secrets", "install_release"]])
async def test_a_change_that_a_failed_deletion_has_ended_is_there_only_if_it_never_began(
    lot: Outcomes, begun: list[str]
) -> None:
    path = await lot.served(max_model_len=4096)
    change = (await lot.ask("PATCH", path, config={"max_model_len": 2048})).json()
    await lot.began(change, *begun)
    deletion = (await lot.ask("DELETE", path)).json()
    await lot.ended(change, OperationStatus.CANCELLED, *reversed(begun or ["write_secrets"]))
    await lot.records.saw(UUID(change["id"]), ready=1)
    shown = await lot.ended(deletion, OperationStatus.FAILED)
    # Half of the change may be there: that is brought back by a change, as after a deletion that got further.
    assert (shown["status"], shown["servable"]) == (("FAILED", False) if begun else ("RUNNING", True))
    is_installed = "install_release" in begun
    assert (shown["revision"], shown["max_model_len"]) == ((2, 2048) if is_installed else (1, 4096))
    again = (await lot.client.patch(path, json={"config": {}})).json()
    assert again["revision"] == (3 if begun else 1)


async def test_a_deletion_whose_release_is_gone_has_removed_something_whoever_uninstalled_it(lot: Outcomes) -> None:
    path = await lot.served()
    begun = (await lot.ask("DELETE", path)).json()
    await lot.desk.mark(UUID(begun["operation_id"]), "remove_release", StepStatus.SUCCEEDED)
    payload = RemovalPayload(operation_id=UUID(begun["operation_id"]), subject_id=UUID(begun["id"]), attempt=1)
    with pytest.raises(NonRetryableError, match="no credential"):
        await lot.removal.verify_removal(payload, Execution("instance", "call"))
    await lot.records.saw(UUID(begun["id"]), ready=1)
    shown = await lot.ended(begun, OperationStatus.FAILED)
    assert (shown["status"], shown["servable"], shown["endpoints"]) == ("FAILED", False, [])
    assert shown["error"]["detail"] == AWAY.detail


async def test_a_first_start_that_failed_stays_so_and_takes_nothing_when_its_deletion_fails(lot: Outcomes) -> None:
    started = (await lot.create(tensor_parallel_size=8)).json()
    path = f"/deployments/{started['id']}"
    failed = await lot.ended(started, OperationStatus.FAILED, "write_secrets")
    for _ in range(2):
        shown = await lot.ended((await lot.ask("DELETE", path)).json(), OperationStatus.FAILED)
        said = f"{AWAY.detail} The deletion failed before it removed anything: {AWAY.detail}"
        newest = {"detail": said, "operation_id": shown["error"]["operation_id"]}
        assert (shown["status"], shown["error"]) == ("FAILED", failed["error"] | newest)
    assert (await lot.create(tensor_parallel_size=8)).status_code == 202


async def test_a_first_start_that_could_not_be_taken_back_waits_for_the_watch_when_its_deletion_fails(
    lot: Outcomes,
) -> None:
    started = (await lot.create(tensor_parallel_size=8)).json()
    await lot.ended(started, OperationStatus.FAILED, "write_secrets", left=["install_release"])
    await lot.records.saw(UUID(started["id"]), ready=1)
    deletion = (await lot.ask("DELETE", f"/deployments/{started['id']}")).json()
    shown = await lot.ended(deletion, OperationStatus.FAILED)
    # The cause of the first failure, and what to do about the newest one: only that can be retried.
    assert (shown["status"], shown["error"]["operation_id"]) == ("FAILED", deletion["operation_id"])
    assert shown["error"]["detail"].startswith(AWAY.detail)
    assert (await lot.create(tensor_parallel_size=8)).status_code == 409


@pytest.mark.parametrize("begun", [[], ["write_secrets"]])
async def test_a_first_start_that_a_failed_deletion_has_ended_keeps_gpus_only_if_it_began(
    lot: Outcomes, begun: list[str]
) -> None:
    started = (await lot.create(tensor_parallel_size=8)).json()
    await lot.began(started, *begun)
    deletion = (await lot.ask("DELETE", f"/deployments/{started['id']}")).json()
    await lot.ended(started, OperationStatus.CANCELLED, *begun)
    await lot.ended(deletion, OperationStatus.FAILED)
    deletion = (await lot.ask("DELETE", f"/deployments/{started['id']}")).json()
    shown = await lot.ended(deletion, OperationStatus.FAILED)
    assert (shown["status"], shown["error"]["operation_id"]) == ("FAILED", deletion["operation_id"])
    assert ("before it removed anything" in shown["error"]["detail"]) is not bool(begun)
    assert (await lot.create(tensor_parallel_size=8)).status_code == (409 if begun else 202)


async def test_what_an_earlier_attempt_has_left_keeps_its_gpus_when_a_failed_deletion_ends_the_next(
    lot: Outcomes,
) -> None:
    started = (await lot.create(tensor_parallel_size=8)).json()
    await lot.ended(started, OperationStatus.FAILED, "write_secrets", left=["install_release"])
    await lot.desk.retry(UUID(started["operation_id"]))
    deletion = (await lot.ask("DELETE", f"/deployments/{started['id']}")).json()
    await lot.ended(started, OperationStatus.CANCELLED)
    await lot.ended(deletion, OperationStatus.FAILED)
    assert (await lot.create(tensor_parallel_size=8)).status_code == 409


async def test_a_change_that_brought_it_back_counts_although_a_deletion_came_before_its_end(lot: Outcomes) -> None:
    path = await lot.served(tensor_parallel_size=8)
    await lot.ended(await lot.withdrawn(path), OperationStatus.FAILED)
    again = (await lot.client.patch(path, json={"config": {}})).json()
    await lot.answered(again["id"])
    deletion = (await lot.ask("DELETE", path)).json()
    await lot.ended(again, OperationStatus.SUCCEEDED)
    shown = await lot.ended(deletion, OperationStatus.FAILED)
    assert (shown["status"], shown["servable"]) == ("RUNNING", True)
    assert "before it removed anything" in shown["error"]["detail"]


async def test_what_a_failed_deletion_may_have_left_keeps_its_gpus(lot: Outcomes) -> None:
    path = await lot.served(tensor_parallel_size=8)
    await lot.ended(await lot.withdrawn(path), OperationStatus.FAILED)
    assert (await lot.create(tensor_parallel_size=8)).status_code == 409


async def test_a_change_that_stays_in_the_cluster_is_told_instead_of_the_deletion_before_it(lot: Outcomes) -> None:
    path = await lot.served(tensor_parallel_size=8)
    await lot.ended(await lot.withdrawn(path), OperationStatus.FAILED)
    again = (await lot.client.patch(path, json={"config": {}})).json()
    shown = await lot.ended(again, OperationStatus.FAILED, "write_secrets", left=["install_release"])
    assert (shown["status"], shown["error"]["operation_id"]) == ("FAILED", again["operation_id"])
    assert [one["kind"] for one in shown["endpoints"]] == ["cluster"]
    assert (await lot.create(tensor_parallel_size=8)).status_code == 409


async def test_a_parked_deployment_that_was_half_removed_is_failed_until_it_is_brought_back(lot: Outcomes) -> None:
    path = await lot.served()
    parked = (await lot.client.post(f"{path}/scale", json={"replicas": 0})).json()
    await lot.finish(parked["operation_id"])
    await lot.ended(await lot.withdrawn(path), OperationStatus.FAILED)
    again = (await lot.client.patch(path, json={"config": {}})).json()
    shown = await lot.ended(again, OperationStatus.CANCELLED)
    assert (shown["status"], shown["endpoints"], shown["error"]["detail"]) == ("FAILED", [], AWAY.detail)
