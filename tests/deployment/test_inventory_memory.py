"""Inventories that are read again and again: what is remembered is what the rows say."""

from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import delete, null, select, update

from budcluster.deployment.fitting.rooms import Asked
from budcluster.deployment.fitting.sizing import GIB
from budcluster.deployment.inventory_memory import Inventory, InventoryMemory
from budcluster.hardware.inventory import profiles_of
from budcluster.hardware.models import InventoryNode
from budcluster.hardware.reading.trimming import digest_of, trim_node
from budcluster.kit.database import Database
from tests.deployment.lot import Lot
from tests.hardware import nodes

BIG, SMALL = "node-0", "node-1"


@pytest.fixture
async def lot(client: httpx.AsyncClient, database: Database) -> Lot:
    """One machine with eight A100s, and one with four L40S."""
    lot = Lot(client, database)
    await lot.prepare([nodes.a100x8(), nodes.l40s()])
    return lot


async def _look(memory: InventoryMemory, lot: Lot) -> Inventory:
    """The inventory; it says what a reading without any memory says."""
    async with lot.database.reading() as session:
        found = await memory.look(session, lot.cluster_id)
        rows = await session.scalars(select(InventoryNode).where(InventoryNode.cluster_id == lot.cluster_id))
        read = {node.name: node for node in await profiles_of(session, lot.cluster_id, rows.all())}
    assert {name: node.profile for name, node in found.nodes.items()} == read
    return found


async def _set(lot: Lot, name: str, **values: Any) -> None:
    async with lot.database.writing() as session:
        await session.execute(
            update(InventoryNode)
            .where(InventoryNode.cluster_id == lot.cluster_id, InventoryNode.name == name)
            .values({name: null() if value is None else value for name, value in values.items()})
        )


def _whole(inventory: Inventory, name: str) -> int:
    return sum(room.whole_devices for room in inventory.nodes[name].rooms)


async def test_only_what_has_changed_is_read_anew(lot: Lot) -> None:
    memory = InventoryMemory()
    first = await _look(memory, lot)
    again = await _look(memory, lot)
    assert all(again.nodes[name] is first.nodes[name] for name in (BIG, SMALL))

    path = await lot.served(tensor_parallel_size=2, places=[BIG])
    held = await _look(memory, lot)
    assert (_whole(first, BIG), _whole(held, BIG)) == (8, 6)
    assert held.nodes[SMALL] is first.nodes[SMALL]
    assert _whole(Inventory({BIG: held.nodes[BIG].with_pods(())}), BIG) == 8
    await lot.stand(path, [])
    assert _whole(await _look(memory, lot), BIG) == 8

    cordoned = nodes.l40s()
    cordoned["metadata"]["name"] = SMALL
    cordoned["spec"]["unschedulable"] = True
    await _set(lot, SMALL, document=trim_node(cordoned), digest=digest_of(trim_node(cordoned)))
    assert _whole(await _look(memory, lot), SMALL) == 0

    before = await _look(memory, lot)
    numa = {"attributes": {"memory.numa": {"elements": {"node_count": "2"}}}}
    await _set(lot, SMALL, feature={"spec": {"features": numa}})
    after = await _look(memory, lot)
    assert (before.nodes[SMALL].profile.numa_nodes, after.nodes[SMALL].profile.numa_nodes) == (None, 2)

    async with lot.database.writing() as session:
        await session.execute(delete(InventoryNode).where(InventoryNode.name == BIG))
    assert list((await _look(memory, lot)).nodes) == [SMALL]


async def test_what_pods_without_gpus_ask_of_a_node_leaves_no_room_there_for_copies(lot: Lot) -> None:
    memory = InventoryMemory()
    before = (await _look(memory, lot)).nodes[SMALL]
    cores = int(before.profile.cpu.allocatable_cores) - 1
    gib = before.profile.allocatable_memory_bytes // GIB - 16
    await _set(lot, SMALL, cpu_requested=cores, memory_requested_bytes=gib * GIB, copies={"promised": [1.0, GIB]})
    busy = (await _look(memory, lot)).nodes[SMALL]
    assert [(room.cores, room.memory_gib, room.fitting(1, share=None)) for room in busy.rooms] == [(1, 16, None)]
    assert busy.profile is before.profile
    assert busy.asked(but={"promised"}) == Asked(cores - 1, (gib - 1) * GIB)

    refused = await lot.create(gpu_model="NVIDIA-L40S")
    assert refused.status_code == 409
    short = "asks for 2 processors and 8 GiB of memory beside its GPUs, and of processors the node has 1 left"
    assert short in refused.json()["detail"]
    await _set(lot, SMALL, cpu_requested=0.0, memory_requested_bytes=0, copies={})
    assert (await lot.create(gpu_model="NVIDIA-L40S")).status_code == 202


async def test_where_nobody_has_looked_what_pods_ask_of_a_node_is_unknown_and_not_nothing(
    client: httpx.AsyncClient, database: Database
) -> None:
    lot, without = Lot(client, database), Lot(client, database)
    narrow = nodes.l40s()
    narrow["status"]["allocatable"]["cpu"] = "5"
    await lot.prepare([narrow])
    path = await lot.served(replicas=2)
    await _set(lot, BIG, cpu_requested=None, memory_requested_bytes=None, copies=None)
    await lot.stand(path, [BIG, BIG])
    refused = await lot.create()
    assert (refused.status_code, "of processors the node has 1 left" in refused.text) == (409, True), refused.text

    await without.prepare([nodes.sapphire_rapids(), nodes.sapphire_rapids()])
    assert (await without.create()).json()["warnings"] == []
    await _set(without, BIG, cpu_requested=None, memory_requested_bytes=None, copies=None)
    (warning,) = (await without.create()).json()["warnings"]
    assert "what other pods ask of each node is not known yet" in warning


async def test_copies_without_gpus_count_where_they_stand_unless_they_are_promised_as_a_whole(
    client: httpx.AsyncClient, database: Database
) -> None:
    lot = Lot(client, database)
    await lot.prepare([nodes.sapphire_rapids()])
    path = await lot.served()
    amounts = {"cpu_requested": 95.0, "memory_requested_bytes": GIB}
    await _set(lot, BIG, **amounts, copies={path.rpartition("/")[2]: [95.0, GIB]})
    assert (await lot.create()).status_code == 202
    await _set(lot, BIG, **amounts, copies={str(uuid4()): [95.0, GIB]})
    assert (await lot.create()).status_code == 409  # somebody else's, or of a deployment that was forgotten

    await _set(lot, BIG, **amounts, copies={path.rpartition("/")[2]: [95.0, GIB]})
    await lot.ask("DELETE", path)
    assert (await lot.create()).status_code == 409
    await _set(lot, BIG, cpu_requested=0.0, memory_requested_bytes=0, copies={})
    assert (await lot.create()).status_code == 202


async def test_clusters_that_were_not_looked_at_for_long_are_forgotten_and_read_again(lot: Lot) -> None:
    other = Lot(lot.client, lot.database)
    await other.prepare([nodes.h100_mig_mixed()])
    memory = InventoryMemory(most_nodes=2)
    first = await _look(memory, lot)
    await _look(memory, other)
    again = await _look(memory, lot)
    assert again == first
    assert again.nodes[BIG] is not first.nodes[BIG]
