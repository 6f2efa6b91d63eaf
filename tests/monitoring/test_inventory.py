"""The inventory follows a cluster through everything that happens to it, and says how fresh it is."""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, literal_column, select, text, update

from budcluster.cluster.models import Cluster, ClusterStatus
from budcluster.hardware import inventory
from budcluster.hardware.inventory import Freshness
from budcluster.hardware.models import InventoryGpuPod, InventoryNode, InventoryState
from budcluster.hardware.reading.labels import MOST, MOST_IN_SUM
from budcluster.hardware.reading.pods import read_pod
from budcluster.hardware.reading.profile import NodeProfile
from budcluster.kit.clock import SystemClock
from budcluster.kube.ownership import LABEL_DEPLOYMENT
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.hardware.nodes import a100x8, feature_of, hami, pod, sapphire_rapids
from tests.monitoring.fleet import FAST, Fleet, change, put, put_node, put_pod, remove
from tests.waiting import until

_XMIN = literal_column("xmin::text")
"""PostgreSQL's mark of the transaction that wrote a row last."""
_NODE_FEATURES = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "nodefeatures.nfd.k8s-sigs.io"},
    "spec": {
        "group": "nfd.k8s-sigs.io",
        "names": {"kind": "NodeFeature", "plural": "nodefeatures"},
        "scope": "Namespaced",
        "versions": [
            {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}
_SOON = text("now() + interval '1 minute'")


class StoppableClock(SystemClock):
    """A clock that fails when told to: it stands for whatever the service does not expect."""

    is_broken = False

    def now(self) -> datetime:
        if self.is_broken:
            raise ArithmeticError
        return super().now()


def nodes_of(fleet: Fleet, cluster_id: UUID) -> Callable[[], Awaitable[dict[str, NodeProfile]]]:
    async def look() -> dict[str, NodeProfile]:
        async with fleet.database.reading() as session:
            rows = await session.scalars(select(InventoryNode).where(InventoryNode.cluster_id == cluster_id))
            profiles = await inventory.profiles_of(session, cluster_id, rows.all())
        return {node.name: node for node in profiles}

    return look


def state_of(fleet: Fleet, cluster_id: UUID) -> Callable[[], Awaitable[Freshness]]:
    async def look() -> Freshness:
        async with fleet.database.reading() as session:
            return await inventory.freshness(session, cluster_id)

    return look


async def complete(fleet: Fleet, cluster_id: UUID) -> Freshness:
    return await until(state_of(fleet, cluster_id), lambda state: state.complete and state.problem is None)


def not_ready(node: dict[str, Any]) -> None:
    for condition in node["status"]["conditions"]:
        if condition["type"] == "Ready":
            condition |= {"status": "Unknown", "reason": "NodeStatusUnknown"}


async def test_what_was_read_is_complete_once_it_is_known_as_of_when(fleet: Fleet, server: KubernetesServer) -> None:
    put_node(server, sapphire_rapids())
    cluster_id = await fleet.add(server)
    with server.fault(Fault("latency", verbs=("get",), resources=("",), seconds=2)):
        async with fleet.watching():
            assert (await complete(fleet, cluster_id)).as_of is not None


async def test_a_ready_cluster_is_read_with_its_nodes_and_what_is_free(fleet: Fleet, server: KubernetesServer) -> None:
    gpu_node = put_node(server, a100x8())
    put_node(server, sapphire_rapids(), name="cpu-1")
    put_pod(server, pod(a100x8(), "llm", nvidia_com__gpu="3"), node=gpu_node)
    cluster_id = await fleet.add(server)
    async with fleet.watching():
        await complete(fleet, cluster_id)
        nodes = await nodes_of(fleet, cluster_id)()
    assert nodes.keys() == {gpu_node, "cpu-1"}
    (pool,) = nodes[gpu_node].pools
    assert (pool.physical, pool.requested, pool.free) == (8, 3, 5)


async def test_changes_arrive_within_moments(fleet: Fleet, server: KubernetesServer) -> None:
    name = put_node(server, a100x8())
    cluster_id = await fleet.add(server)
    look = nodes_of(fleet, cluster_id)
    async with fleet.watching():
        await complete(fleet, cluster_id)
        change(server, "Node", name, not_ready, status=True)
        await until(look, lambda nodes: not nodes[name].ready and nodes[name].pools[0].free == 0)
        put_node(server, sapphire_rapids(), name="new")
        await until(look, lambda nodes: "new" in nodes)
        remove(server, "Node", "new")
        await until(look, lambda nodes: "new" not in nodes)


async def test_a_pod_that_ends_or_goes_gives_its_gpus_back(fleet: Fleet, server: KubernetesServer) -> None:
    name = put_node(server, a100x8())
    put_pod(server, pod(a100x8(), "done", nvidia_com__gpu="2"), node=name)
    put_pod(server, pod(a100x8(), "gone", nvidia_com__gpu="1"), node=name)
    cluster_id = await fleet.add(server)
    look = nodes_of(fleet, cluster_id)
    async with fleet.watching():
        await until(look, lambda nodes: bool(nodes) and nodes[name].pools[0].free == 5)
        change(server, "Pod", "done", lambda one: one["status"].update(phase="Succeeded"), status=True)
        await until(look, lambda nodes: nodes[name].pools[0].free == 7)
        remove(server, "Pod", "gone")
        await until(look, lambda nodes: nodes[name].pools[0].free == 8)


async def test_what_pods_ask_of_their_node_is_summed_but_for_those_with_rows_of_their_own(
    fleet: Fleet, server: KubernetesServer
) -> None:
    name = put_node(server, sapphire_rapids())
    amounts = {"cpu": "1500m", "memory": "2Gi"}
    put_pod(server, pod(sapphire_rapids(), "foreign", **amounts), node=name)
    put_pod(server, pod(sapphire_rapids(), "trainer", nvidia_com__gpu="1", **amounts), node=name)
    ours = pod(sapphire_rapids(), "ours", **amounts)
    ours["metadata"]["labels"] = {LABEL_DEPLOYMENT: "an-id"}
    put_pod(server, ours, node=name)
    cluster_id = await fleet.add(server)

    async def loads() -> tuple[float | None, int | None, dict[str, Any] | None]:
        row, of = InventoryNode, InventoryNode.cluster_id == cluster_id
        async with fleet.database.reading() as session:
            wanted = select(row.cpu_requested, row.memory_requested_bytes, row.copies).where(of)
            found = (await session.execute(wanted)).one_or_none()
            return tuple(found) if found else (None, None, None)

    async with fleet.watching():
        assert await until(loads, lambda found: found[0] is not None) == (3.0, 4 * 2**30, {"an-id": [1.5, 2 * 2**30]})
        async with fleet.database.reading() as session:
            row = (await session.scalars(select(InventoryGpuPod))).one()
            assert read_pod(row.document).resources == {"cpu": 1.5, "memory": 2 * 2**30, "nvidia.com/gpu": 1}
        remove(server, "Pod", "ours")
        await until(loads, lambda found: found == (1.5, 2 * 2**30, {}))
    remove(server, "Pod", "foreign")
    async with fleet.watching():  # whoever goes on later finds a sum that is too high
        await until(loads, lambda found: found == (0.0, 0, {}))


async def test_a_lost_gpu_is_seen_when_the_plugin_reports_one_less(fleet: Fleet, server: KubernetesServer) -> None:
    name = put_node(server, hami())
    cluster_id = await fleet.add(server)
    look = nodes_of(fleet, cluster_id)

    def lose(node: dict[str, Any]) -> None:
        register = node["metadata"]["annotations"]["hami.io/node-nvidia-register"]
        node["metadata"]["annotations"]["hami.io/node-nvidia-register"] = register.replace(',"health":true', "")

    async with fleet.watching():
        await until(look, lambda nodes: bool(nodes) and nodes[name].gpus[0].healthy)
        change(server, "Node", name, lose)
        await until(look, lambda nodes: not nodes[name].gpus[0].healthy)


async def test_heartbeats_write_nothing(fleet: Fleet, server: KubernetesServer) -> None:
    name = put_node(server, a100x8())
    cluster_id = await fleet.add(server)

    def beat(node: dict[str, Any]) -> None:
        for condition in node["status"]["conditions"]:
            condition["lastHeartbeatTime"] = "2026-11-24T10:00:00Z"

    async def stamp() -> str:
        async with fleet.database.reading() as session:
            return str((await session.execute(select(InventoryNode.__table__.c.name, _XMIN))).one())

    async with fleet.watching():
        await complete(fleet, cluster_id)
        before = await stamp()
        change(server, "Node", name, beat, status=True)
        put_node(server, sapphire_rapids(), name="later")
        await until(nodes_of(fleet, cluster_id), lambda nodes: "later" in nodes)
        remove(server, "Node", "later")
        await until(nodes_of(fleet, cluster_id), lambda nodes: "later" not in nodes)
        assert await stamp() == before


async def test_nothing_is_missed_when_watches_are_cut_and_history_is_gone(
    fleet: Fleet, server: KubernetesServer
) -> None:
    put_node(server, sapphire_rapids(), name="old")
    cluster_id = await fleet.add(server)
    look = nodes_of(fleet, cluster_id)
    async with fleet.watching():
        await complete(fleet, cluster_id)
        server.cut_watches()
        put_node(server, sapphire_rapids(), name="during-cut")
        await until(look, lambda nodes: "during-cut" in nodes)
        with server.fault(Fault("unavailable", verbs=("watch",))):
            server.cut_watches()
            put_node(server, sapphire_rapids(), name="unseen")
            remove(server, "Node", "old")
            server.expire_history()
        await until(look, lambda nodes: nodes.keys() == {"during-cut", "unseen"})


async def test_the_inventory_stays_and_says_why_it_is_old_while_the_api_server_is_gone(
    fleet: Fleet, server: KubernetesServer
) -> None:
    put_node(server, sapphire_rapids(), name="node-1")
    # With all kinds there, every watch could go on from where it was without a question before.
    server.call(lambda: server.cluster.store.create(copy.deepcopy(_NODE_FEATURES)))
    cluster_id = await fleet.add(server)

    async def lease() -> datetime:
        async with fleet.database.reading() as session:
            ends = await session.scalar(select(InventoryState.lease_until))
        assert ends is not None
        return ends

    async with fleet.watching():
        await complete(fleet, cluster_id)
        with server.gone():
            gone = await until(state_of(fleet, cluster_id), lambda state: state.problem is not None)
            assert gone.complete
            assert "is the cluster up" in (gone.problem or "")
            assert (await nodes_of(fleet, cluster_id)()).keys() == {"node-1"}
            told_until = await lease()
            await until(lease, lambda ends: ends > told_until + timedelta(seconds=1))
            still = await state_of(fleet, cluster_id)()
            assert still.as_of == gone.as_of
            assert still.problem is not None
        back = await complete(fleet, cluster_id)
        assert back.as_of is not None
        assert gone.as_of is not None
        await until(state_of(fleet, cluster_id), lambda state: state.as_of is not None and state.as_of > gone.as_of)


async def test_a_credential_that_dies_is_told(fleet: Fleet, server: KubernetesServer) -> None:
    cluster_id = await fleet.add(server)
    async with fleet.watching():
        await complete(fleet, cluster_id)
        with server.fault(Fault("unauthorized")):
            server.cut_watches()
            dead = await until(state_of(fleet, cluster_id), lambda state: state.problem is not None)
            assert "credential" in (dead.problem or "")
        await complete(fleet, cluster_id)


async def test_of_two_replicas_one_watches_and_the_other_takes_over_when_it_ends(
    fleet: Fleet, server: KubernetesServer
) -> None:
    put_node(server, sapphire_rapids(), name="node-1")
    cluster_id = await fleet.add(server)
    async with fleet.watching() as second:
        async with fleet.watching() as first:
            await complete(fleet, cluster_id)
            assert sorted([len(first.kept), len(second.kept)]) == [0, 1]
        put_node(server, sapphire_rapids(), name="node-2")
        await until(nodes_of(fleet, cluster_id), lambda nodes: nodes.keys() == {"node-1", "node-2"})
        assert second.kept == {cluster_id}


async def test_a_replica_that_lost_its_lease_writes_nothing_more(fleet: Fleet, server: KubernetesServer) -> None:
    cluster_id = await fleet.add(server)
    async with fleet.watching() as watch:
        await complete(fleet, cluster_id)
        async with fleet.database.writing() as session:
            other = update(InventoryState).values(holder="other", lease_until=_SOON)
            await session.execute(other.where(InventoryState.cluster_id == cluster_id))

        async def kept() -> bool:
            return bool(watch.kept)

        await until(kept, lambda keeps: not keeps)
        put_node(server, sapphire_rapids(), name="unseen")
        await asyncio.sleep(0)
        assert await nodes_of(fleet, cluster_id)() == {}


async def test_the_watch_ends_with_the_cluster(fleet: Fleet, server: KubernetesServer) -> None:
    cluster_id = await fleet.add(server)
    async with fleet.watching() as watch:
        await complete(fleet, cluster_id)

        async def kept() -> frozenset[UUID]:
            return watch.kept

        async with fleet.database.writing() as session:
            await session.execute(update(Cluster).where(Cluster.id == cluster_id).values(status=ClusterStatus.DELETING))
        await until(kept, lambda keeps: not keeps)
        async with fleet.database.writing() as session:
            await session.execute(delete(Cluster).where(Cluster.id == cluster_id))
        assert (await state_of(fleet, cluster_id)()).as_of is None


async def test_absurd_labels_do_not_stop_the_others(fleet: Fleet, server: KubernetesServer) -> None:
    absurd = a100x8()
    absurd["metadata"]["labels"] |= {"nvidia.com/gpu.count": "minus-one", "nvidia.com/gpu.memory": "9" * 60}
    absurd["metadata"]["annotations"]["hami.io/node-nvidia-register"] = "\0" * 1000
    put_node(server, absurd, name="absurd")
    put_node(server, a100x8(), name="sound")
    cluster_id = await fleet.add(server)
    async with fleet.watching():
        await complete(fleet, cluster_id)
        nodes = await nodes_of(fleet, cluster_id)()
    assert len(nodes["sound"].gpus) == 8
    assert any("'minus-one'" in gap for gap in nodes["absurd"].gaps)


async def test_an_absurd_pod_or_node_does_not_stop_the_inventory(fleet: Fleet, server: KubernetesServer) -> None:
    name = put_node(server, a100x8())
    put_pod(server, pod(a100x8(), "sane", memory="2Gi", nvidia_com__gpu="1"), node=name)
    for number in range(9):
        put_pod(server, pod(a100x8(), f"absurd-{number}", memory="9Ei", cpu="1e30", nvidia_com__gpu="1e25"), node="")
    greedy = a100x8()
    greedy["status"]["allocatable"] |= {"memory": "9Ei", "cpu": "1e25"}
    put_node(server, greedy, name="greedy")
    cluster_id = await fleet.add(server)
    async with fleet.watching():
        await complete(fleet, cluster_id)
        nodes = await nodes_of(fleet, cluster_id)()
        async with fleet.database.reading() as session:
            sums = await inventory.totals(session, cluster_id)
    assert nodes[name].pools[0].free == 7
    assert any("'9Ei', which is more than any node has" in gap for gap in nodes["greedy"].gaps)
    assert sums.memory_bytes == nodes[name].allocatable_memory_bytes
    assert sums.memory_requested_bytes == 9 * MOST + (2 << 30)


async def test_sums_over_more_than_a_bigint_holds_are_cut(fleet: Fleet, server: KubernetesServer) -> None:
    for name in ("node-1", "node-2"):
        put_node(server, sapphire_rapids(), name=name)
    cluster_id = await fleet.add(server)
    async with fleet.watching():
        await complete(fleet, cluster_id)
    async with fleet.database.writing() as session:
        await session.execute(update(InventoryNode).values(memory_bytes=MOST_IN_SUM))
    async with fleet.database.reading() as session:
        assert (await inventory.totals(session, cluster_id)).memory_bytes == MOST_IN_SUM


async def test_an_inventory_that_fails_by_itself_says_so_rests_and_recovers(
    fleet: Fleet, server: KubernetesServer
) -> None:
    put_node(server, sapphire_rapids(), name="node-1")
    cluster_id = await fleet.add(server)
    clock = StoppableClock()
    async with fleet.watching(replace(FAST, rest_s=0.5), clock=clock) as watch:
        await complete(fleet, cluster_id)
        clock.is_broken = True
        failed = await until(state_of(fleet, cluster_id), lambda state: state.problem is not None)
        assert "failed on something that the cluster told (ArithmeticError)" in (failed.problem or "")

        async def kept() -> frozenset[UUID]:
            return watch.kept

        await until(kept, lambda clusters: not clusters)
        assert (await nodes_of(fleet, cluster_id)()).keys() == {"node-1"}
        clock.is_broken = False
        await complete(fleet, cluster_id)


async def test_node_features_that_are_removed_do_not_disturb_the_nodes(fleet: Fleet, server: KubernetesServer) -> None:
    name = put_node(server, a100x8())
    server.call(lambda: server.cluster.store.create(copy.deepcopy(_NODE_FEATURES)))
    feature = feature_of(a100x8(), vendor="10de", device="20b2", cls="0302", count=8, numa="4")
    kind = {"apiVersion": "nfd.k8s-sigs.io/v1alpha1", "kind": "NodeFeature"}
    put(server, {**feature, **kind, "metadata": {**feature["metadata"], "namespace": "default"}})
    cluster_id = await fleet.add(server)
    look = nodes_of(fleet, cluster_id)
    async with fleet.watching():
        await until(look, lambda nodes: bool(nodes) and nodes[name].numa_nodes == 4)
        server.call(
            lambda: server.cluster.store.delete("CustomResourceDefinition", None, "nodefeatures.nfd.k8s-sigs.io")
        )
        server.cut_watches()
        await until(look, lambda nodes: nodes[name].numa_nodes is None)
        put_node(server, sapphire_rapids(), name="later")
        await until(look, lambda nodes: "later" in nodes)
        assert (await state_of(fleet, cluster_id)()).problem is None
