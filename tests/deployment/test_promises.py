"""What running changes keep from others: room for their end, and for the way back."""

from collections.abc import Iterable

import httpx
import pytest

from budcluster.deployment.fitting.demands import Demand, ProcessorDemand
from budcluster.deployment.fitting.model_facts import read_config
from budcluster.deployment.fitting.rooms import Device, Room, Share, rooms_of
from budcluster.deployment.fitting.sizing import Shape
from budcluster.deployment.inventory_memory import Holder, PodKey
from budcluster.deployment.promises import End, Promised
from budcluster.hardware.reading.pods import read_pod
from budcluster.hardware.reading.reader import read_cluster
from budcluster.kit.database import Database
from tests.deployment import models
from tests.deployment.lot import Lot
from tests.hardware import nodes

BIG, SMALL = "node-0", "node-1"
A100, L40S = "NVIDIA-A100-SXM4-80GB", "NVIDIA-L40S"
FACTS = read_config(models.LLAMA_8B | {"num_hidden_layers": 4})


@pytest.fixture
async def lot(client: httpx.AsyncClient, database: Database) -> Lot:
    """One machine with eight A100s, and one with four L40S."""
    lot = Lot(client, database)
    await lot.prepare([nodes.a100x8(), nodes.l40s()])
    return lot


async def test_a_copy_that_shrinks_keeps_what_its_way_back_needs_until_the_change_has_ended(lot: Lot) -> None:
    path = await lot.served(tensor_parallel_size=8, places=[BIG])
    shrunk = await lot.ask("PATCH", path, config={"tensor_parallel_size": 2})
    for places in ([], [BIG]):  # the old copy is gone, then the new one stands
        await lot.stand(path, places)
        refused = await lot.create(gpu_model=A100)
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/no-capacity")
        assert "1 free GPUs on one node, and the most that a node has left is 0" in refused.json()["detail"]
    await lot.finish(shrunk.json()["operation_id"])
    assert (await lot.create(gpu_model=A100, tensor_parallel_size=4)).status_code == 202


async def test_a_copy_that_moves_to_other_gpus_keeps_those_that_it_left(lot: Lot) -> None:
    path = await lot.served(tensor_parallel_size=8, gpu_model=A100, places=[BIG])
    moved = await lot.ask("PATCH", path, config={"tensor_parallel_size": 1, "gpu_model": L40S})
    await lot.stand(path, [SMALL])
    assert [(await lot.create(gpu_model=model)).status_code for model in (A100, L40S)] == [409, 202]
    await lot.finish(moved.json()["operation_id"])
    assert (await lot.create(gpu_model=A100)).status_code == 202


async def test_copies_that_are_scaled_away_may_come_back_until_that_has_ended(lot: Lot) -> None:
    path = await lot.served(replicas=4, tensor_parallel_size=2, gpu_model=A100, places=[BIG] * 4)
    scaled = await lot.ask("POST", f"{path}/scale", replicas=1)
    await lot.stand(path, [BIG])
    assert (await lot.create(gpu_model=A100)).status_code == 409
    await lot.finish(scaled.json()["operation_id"])
    assert (await lot.create(gpu_model=A100, tensor_parallel_size=4)).status_code == 202


async def test_a_change_that_needs_no_more_either_way_keeps_nothing_from_others(lot: Lot) -> None:
    path = await lot.served(replicas=7, gpu_model=A100, places=[BIG] * 7)
    await lot.ask("POST", f"{path}/scale", replicas=6)
    assert (await lot.create(gpu_model=A100)).status_code == 202


async def test_the_copy_that_goes_ahead_of_the_others_takes_its_place_once(lot: Lot) -> None:
    path = await lot.served(tensor_parallel_size=2, gpu_model=A100, places=[BIG])
    moved = await lot.ask("PATCH", path, config={"gpu_model": L40S})
    assert (await lot.values(path))["strategy"]["maxSurge"] == 1
    assert (await lot.create(gpu_model=L40S, tensor_parallel_size=2)).status_code == 202
    await lot.finish(moved.json()["operation_id"])

    path = await lot.served(tensor_parallel_size=2, gpu_model=A100, places=[BIG])
    grown = await lot.ask("PATCH", path, config={"max_num_seqs": 8})
    await lot.asked_for_a_prompt(grown.json()["operation_id"])
    assert (await lot.create(gpu_model=A100, tensor_parallel_size=4)).status_code == 202


class _Floor:
    """One machine, with pods that hold some of its GPUs."""

    def __init__(self, machine: nodes.Node, pods: Iterable[nodes.Node]) -> None:
        self._machine = machine
        self._pods = {(pod["metadata"]["namespace"], pod["metadata"]["name"]): pod for pod in pods}
        self._whole = self._read(frozenset())

    def rooms(self, *, without: frozenset[PodKey] = frozenset()) -> list[Room]:
        return self._read(without) if without & self._pods.keys() else self._whole

    def standing(self, *names: str) -> list[Holder]:
        node = self._machine["metadata"]["name"]
        return [Holder(node, read_pod(pod)) for (_, name), pod in self._pods.items() if name in names]

    def _read(self, without: frozenset[PodKey]) -> list[Room]:
        left = [pod for key, pod in self._pods.items() if key not in without]
        return rooms_of(read_cluster([self._machine], pods=left).nodes)


def _gpus(width: int) -> Demand:
    return Demand(Shape(tensor_parallel=width), facts=FACTS, resource="nvidia.com/gpu")


def _holder(machine: nodes.Node, name: str, gpus: int) -> nodes.Node:
    pod = nodes.pod(machine, nvidia_com__gpu=str(gpus))
    pod["metadata"]["name"] = name
    return pod


def _free(floor: _Floor, *deployments: tuple[list[End], list[Holder]]) -> int:
    promised = Promised()
    for ends, standing in deployments:
        promised.add("", ends, standing, floor.rooms())
    assert not promised.waiting
    return sum(room.whole_devices for room in promised.rooms(floor))


def test_changes_in_opposite_directions_each_keep_the_larger_of_their_ends() -> None:
    machine = nodes.a100x8()
    floor = _Floor(machine, [_holder(machine, "grows", 2), _holder(machine, "shrank", 2)])
    grows = [End(_gpus(4), 1, is_other=True), End(_gpus(2), 1, is_other=True)], floor.standing("grows")
    shrank = [End(_gpus(2), 1, is_other=True), End(_gpus(4), 1, is_other=True)], floor.standing("shrank")
    assert [_free(floor, grows), _free(floor, shrank), _free(floor, grows, shrank)] == [2, 2, 0]


def test_a_copy_may_grow_into_what_it_holds_and_leaves_the_rest_to_others() -> None:
    machine = nodes.a100x8()
    floor = _Floor(machine, [_holder(machine, "grows", 2)])
    assert _free(floor, ([End(_gpus(4), 1, is_other=True)], floor.standing("grows"))) == 4


def test_a_pod_of_the_revision_that_failed_is_no_copy_of_the_one_that_comes_back() -> None:
    machine = nodes.a100x8()
    floor = _Floor(machine, [_holder(machine, "failed", 2)])
    assert _free(floor, ([End(_gpus(8), 1)], floor.standing("failed"))) == 0


def test_what_a_pod_gives_back_of_a_shared_gpu_is_free_beside_what_others_were_promised_of_it() -> None:
    share = Share(30_000, 20)
    whole = Device(free_mib=80_000, free_shares=10, untouched=True)
    held = whole.without(share)
    promised = held.without(share)
    assert promised.regaining(held, whole) == whole.without(share)
    assert held.regaining(held, whole) == whole
    assert held.without(None).regaining(held, held) == held.without(None)


def test_without_gpus_the_larger_of_both_ends_is_kept() -> None:
    promised = Promised()
    wide, many = ProcessorDemand(cores=32, memory_gib=64), ProcessorDemand(cores=8, memory_gib=128)
    promised.add("changing", [End(wide, 1), End(many, 3)], [], [])
    assert promised.without_gpus == {"changing": ProcessorDemand(cores=32, memory_gib=128, replicas=3)}
