"""Changing deployments that stand: what is checked, how the new copies come, and that no GPU is promised twice."""

from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import delete, update

from budcluster.deployment.models import Deployment, DeploymentStatus
from budcluster.hardware.models import InventoryNode
from budcluster.kit.database import Database
from tests.deployment.lot import Lot
from tests.hardware import nodes

NODE = "node-0"
SURGE = {"type": "RollingUpdate", "maxSurge": 1, "maxUnavailable": 0}
DRAIN_ONE = {"type": "RollingUpdate", "maxSurge": 0, "maxUnavailable": 1}


@pytest.fixture
async def lot(client: httpx.AsyncClient, database: Database) -> Lot:
    """One machine with eight GPUs."""
    lot = Lot(client, database)
    await lot.prepare([nodes.a100x8()])
    return lot


def _type(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("type", "")


NO_CAPACITY = (409, "/problems/no-capacity")


async def test_a_copy_may_grow_into_the_devices_that_it_holds(lot: Lot) -> None:
    path = await lot.served(tensor_parallel_size=4, places=[NODE])
    grown = await lot.ask("PATCH", path, config={"tensor_parallel_size": 8})
    assert grown.status_code == 202, grown.text
    assert (await lot.values(path))["strategy"]["type"] == "Recreate"
    # The old copy holds four yet, and the new one was promised all eight.
    assert _type(await lot.create()) == NO_CAPACITY


async def test_all_copies_are_looked_at_when_they_change(lot: Lot) -> None:
    path = await lot.served(replicas=4, places=[NODE] * 4)
    assert _type(await lot.ask("PATCH", path, config={"tensor_parallel_size": 4})) == NO_CAPACITY
    forced = await lot.ask("PATCH", path, config={"tensor_parallel_size": 4}, force=True)
    assert forced.status_code == 202
    assert (await lot.values(path))["strategy"]["type"] == "Recreate"


@pytest.mark.parametrize(
    "change",
    [
        {"max_model_len": 131_072, "extra_args": ["--gpu-memory-utilization", "0.02"]},
        {"extra_args": ["--gpu-memory-utilization=0.02"]},
        {"gpu_model": "NVIDIA-H100-80GB-HBM3"},
    ],
)
async def test_whatever_a_copy_needs_more_of_is_looked_at(lot: Lot, change: dict[str, object]) -> None:
    path = await lot.served(places=[NODE])
    assert _type(await lot.ask("PATCH", path, config=change)) == NO_CAPACITY


async def test_going_back_is_looked_at_as_well_and_can_be_forced(lot: Lot) -> None:
    path = await lot.served(tensor_parallel_size=8, places=[NODE])
    shrunk = await lot.ask("PATCH", path, config={"tensor_parallel_size": 2})
    await lot.finish(shrunk.json()["operation_id"])
    await lot.stand(path, [NODE])
    await lot.served(tensor_parallel_size=4, places=[NODE])
    assert _type(await lot.ask("POST", f"{path}/rollback", revision=1)) == NO_CAPACITY
    assert (await lot.ask("POST", f"{path}/rollback", revision=1, force=True)).status_code == 202


async def test_a_new_copy_that_comes_first_is_counted_until_the_change_has_ended(lot: Lot) -> None:
    path = await lot.served(replicas=6, places=[NODE] * 6)
    changed = await lot.ask("PATCH", path, config={"max_num_seqs": 8})
    assert (await lot.values(path))["strategy"] == SURGE
    assert (await lot.create()).status_code == 202
    assert _type(await lot.create()) == NO_CAPACITY
    await lot.finish(changed.json()["operation_id"])
    assert (await lot.create()).status_code == 202


async def test_a_full_machine_makes_room_copy_by_copy(lot: Lot) -> None:
    path = await lot.served(replicas=8, places=[NODE] * 8)
    assert (await lot.ask("PATCH", path, config={"max_num_seqs": 8})).status_code == 202
    assert (await lot.values(path))["strategy"] == DRAIN_ONE


async def test_copies_that_do_not_stand_yet_are_counted_when_more_are_asked_for(lot: Lot) -> None:
    path = await lot.served(replicas=2, tensor_parallel_size=2, places=[NODE])
    await lot.served(replicas=3, places=[NODE] * 3)
    # Three are free, one copy waits for two of them, and one more would need another two.
    assert _type(await lot.ask("POST", f"{path}/scale", replicas=3)) == NO_CAPACITY
    assert (await lot.ask("POST", f"{path}/scale", replicas=1)).status_code == 202


async def test_another_number_of_copies_changes_nothing_that_a_pod_is_made_of(lot: Lot) -> None:
    path = await lot.served(places=[NODE])
    before = await lot.values(path)
    assert (await lot.ask("POST", f"{path}/scale", replicas=3)).status_code == 202
    assert await lot.values(path) == before
    preferred = before["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [term["preference"]["matchFields"][0]["values"] for term in preferred] == [[NODE]]


async def test_another_host_name_leaves_the_copies_where_they_stand(lot: Lot) -> None:
    path = await lot.served(places=[NODE, NODE], replicas=2)
    before = await lot.values(path)
    async with lot.database.writing() as session:
        await session.execute(delete(InventoryNode))  # nothing can be promised there now
    config = {"hardware": "NVIDIA", "ingress_host": "chat.example.org"}
    changed = await lot.ask("PATCH", path, config=config, force=True)
    assert changed.status_code == 202, changed.text
    after = await lot.values(path)
    assert {name for name in after if after[name] != before[name]} <= {"ingress", "strategy"}


async def test_one_volume_for_one_node_is_no_cache_for_two_copies(lot: Lot) -> None:
    for cache in ({"mode": "pvc"}, {"mode": "existing", "claim": "models"}):
        path = await lot.served(cache=cache)
        refused = await lot.ask("POST", f"{path}/scale", replicas=2)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/config/cache")
        assert (await lot.ask("PATCH", path, config={"max_num_seqs": 8})).status_code == 202
    refused = await lot.create(replicas=2, cache={"mode": "existing", "claim": "models"})
    assert refused.status_code == 422


async def test_a_claim_that_was_made_stays_as_it_is(lot: Lot) -> None:
    path = await lot.served(cache={"mode": "pvc"})
    async with lot.database.writing() as session:
        facts = {**(await session.get_one(Deployment, UUID(path[13:]))).model_facts, "weights_bytes": 10**9}
        await session.execute(update(Deployment).values(model_facts=facts))
    made = (await lot.values(path))["cache"]["size"]
    changed = await lot.ask("PATCH", path, config={"max_num_seqs": 8})
    assert changed.status_code == 202
    assert (await lot.values(path))["cache"]["size"] == made
    await lot.finish(changed.json()["operation_id"])
    refused = await lot.ask("PATCH", path, config={"cache": {"mode": "pvc", "storage_class": "fast"}})
    assert "cannot be changed" in refused.json()["errors"][0]["detail"]


async def test_another_credential_behind_the_same_name_starts_the_pods_anew(lot: Lot) -> None:
    first, second = [await _token(lot) for _ in range(2)]
    path = await lot.served(hugging_face_credential_id=first)
    before = await lot.values(path)
    changed = await lot.ask("PATCH", path, config={"hugging_face_credential_id": second})
    assert changed.status_code == 202, changed.text
    after = await lot.values(path)
    assert after["secretEnv"] == before["secretEnv"]
    assert after["podAnnotations"] != before["podAnnotations"]
    # Going back may need the first one, until the change has ended.
    assert _type(await lot.client.delete(f"/credentials/{first}")) == (409, "/problems/credential-in-use")
    await lot.finish(changed.json()["operation_id"])
    assert (await lot.client.delete(f"/credentials/{first}")).status_code == 204
    assert (await lot.client.delete(f"/credentials/{second}")).status_code == 409


@pytest.mark.parametrize("name", ["HF_TOKEN", "DO_NOT_TRACK", "VLLM_NO_USAGE_STATS"])
async def test_a_secret_does_not_shadow_a_variable_that_is_set_already(lot: Lot, name: str) -> None:
    token = await _token(lot)
    config = {"hugging_face_credential_id": token, "secrets": [{"env": name, "credential_id": token}]}
    refused = await lot.create(**config)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/config/secrets")


async def test_a_host_name_is_answered_by_one_deployment_of_a_cluster(lot: Lot) -> None:
    first = await lot.served(ingress_host="chat.example.org")
    second = await lot.create(ingress_host="chat.example.org")
    assert _type(second) == (409, "/problems/ingress-host-taken")
    assert second.json()["deployment_id"] == first.rpartition("/")[2]
    other = await lot.served()
    taken = await lot.ask("PATCH", other, config={"ingress_host": "chat.example.org"})
    assert _type(taken) == (409, "/problems/ingress-host-taken")
    assert (await lot.ask("PATCH", first, config={"max_num_seqs": 8})).status_code == 202


async def test_a_parked_deployment_is_changed_without_room_and_woken_only_with(lot: Lot) -> None:
    path = await lot.served(tensor_parallel_size=2, places=[NODE])
    parked = await lot.ask("POST", f"{path}/scale", replicas=0)
    await lot.finish(parked.json()["operation_id"])
    await lot.stand(path, [])
    await lot.served(replicas=7, places=[NODE] * 7)
    changed = await lot.ask("PATCH", path, config={"max_num_seqs": 8})
    assert changed.status_code == 202, changed.text
    await lot.finish(changed.json()["operation_id"])
    assert _type(await lot.ask("POST", f"{path}/scale", replicas=1)) == NO_CAPACITY


@pytest.mark.parametrize(
    ("machine", "resource", "copies"),
    [
        (nodes.h100_mig_mixed(), "nvidia.com/mig-3g.40gb", 2),
        (nodes.with_resources(nodes.t4_time_sliced(), {"nvidia.com/gpu.shared": "4"}), "nvidia.com/gpu.shared", 1),
    ],
    ids=["slices", "renamed shares"],
)
async def test_what_is_not_a_whole_gpu_is_asked_for_by_its_name(
    client: httpx.AsyncClient, database: Database, machine: nodes.Node, resource: str, copies: int
) -> None:
    lot = Lot(client, database)
    await lot.prepare([machine])
    path = await lot.served(replicas=copies, places=[NODE] * copies)
    assert (await lot.values(path))["resources"]["limits"] == {resource: 1}
    assert _type(await lot.create()) == NO_CAPACITY


async def test_without_gpus_every_accepted_copy_keeps_its_place(client: httpx.AsyncClient, database: Database) -> None:
    lot = Lot(client, database)
    small = nodes.sapphire_rapids()
    small["status"]["allocatable"] |= {"cpu": "20", "memory": "128Gi"}
    tainted = nodes.a100x8()
    await lot.prepare([small, tainted])
    path = await lot.served(hardware="CPU")
    assert (await lot.create(hardware="CPU")).status_code == 202
    refused = await lot.create(hardware="CPU")
    assert _type(refused) == NO_CAPACITY
    assert "its taint keeps out pods that ask for no GPU" in refused.text
    assert _type(await lot.ask("POST", f"{path}/scale", replicas=2)) == NO_CAPACITY


async def test_a_change_of_what_is_being_updated_waits(lot: Lot) -> None:
    path = await lot.served(places=[NODE])
    await lot.ask("PATCH", path, config={"max_num_seqs": 8})
    async with lot.database.reading() as session:
        row = await session.get_one(Deployment, UUID(path[13:]))
        assert row.status is DeploymentStatus.UPDATING
    assert _type(await lot.ask("PATCH", path, config={"max_num_seqs": 9})) == (409, "/problems/operation-busy")


async def _token(lot: Lot) -> str:
    secret = {"token": "hf_" + uuid4().hex}
    body = {"purpose": "HUGGING_FACE", "name": f"hub-{uuid4().hex[:6]}", "secret": secret}
    return str((await lot.client.post("/credentials", json=body)).json()["id"])
