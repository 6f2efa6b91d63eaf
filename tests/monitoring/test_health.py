"""Health follows what happens to a cluster, without flapping, and heals by itself."""

import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text, update

from budcluster.audit.models import AuditEvent
from budcluster.cluster.activities import as_json
from budcluster.cluster.models import Cluster, ClusterHealth
from budcluster.hardware.models import AddonName, AddonOwner, AddonState, ClusterAddon
from budcluster.hardware.reading.reader import read_cluster
from budcluster.kit.clock import SystemClock
from budcluster.monitoring.health import HealthChecks
from budcluster.operations.models import SubjectEvent
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.hardware.nodes import a100x8, sapphire_rapids, with_labels, with_resources
from tests.monitoring.fleet import Fleet, change, put, put_node
from tests.monitoring.test_inventory import complete, nodes_of, not_ready
from tests.waiting import until


class ClockAt:
    """A clock that stands."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at


def checks(fleet: Fleet, *, deadline_s: float = 5.0) -> HealthChecks:
    return HealthChecks(fleet.database, fleet.access, SystemClock(), deadline_s=deadline_s)


async def shown(fleet: Fleet, cluster_id: UUID) -> tuple[ClusterHealth, list[str]]:
    async with fleet.database.reading() as session:
        cluster = await session.get(Cluster, cluster_id)
    assert cluster is not None
    return cluster.health, [reason["code"] for reason in cluster.health_reasons]


async def events(fleet: Fleet) -> list[dict[str, Any]]:
    async with fleet.database.reading() as session:
        wanted = select(AuditEvent.facts).where(AuditEvent.action == "cluster.health_changed").order_by(AuditEvent.at)
        return list(await session.scalars(wanted))


async def test_a_cluster_goes_and_comes_back_and_each_change_is_told_once(
    fleet: Fleet, server: KubernetesServer
) -> None:
    put_node(server, sapphire_rapids())
    cluster_id = await fleet.add(server)
    health = checks(fleet)
    async with fleet.watching():
        await complete(fleet, cluster_id)
        await health.run()
        assert await shown(fleet, cluster_id) == (ClusterHealth.HEALTHY, [])
        with server.fault(Fault("unauthorized", user="kubernetes-admin")):
            await health.run()
            assert (await shown(fleet, cluster_id))[0] is ClusterHealth.HEALTHY
            await health.run()
            await health.run()
            assert await shown(fleet, cluster_id) == (ClusterHealth.UNREACHABLE, ["credential-refused"])
        await complete(fleet, cluster_id)
        await health.run()
        assert (await shown(fleet, cluster_id))[0] is ClusterHealth.UNREACHABLE
        await health.run()
        assert await shown(fleet, cluster_id) == (ClusterHealth.HEALTHY, [])
    assert [(event["from"], event["to"]) for event in await events(fleet)] == [
        ("UNKNOWN", "HEALTHY"),
        ("HEALTHY", "UNREACHABLE"),
        ("UNREACHABLE", "HEALTHY"),
    ]


async def test_each_change_waits_in_the_outbox_with_what_it_was_and_is(fleet: Fleet, server: KubernetesServer) -> None:
    put_node(server, sapphire_rapids())
    cluster_id = await fleet.add(server)
    async with fleet.watching():
        await complete(fleet, cluster_id)
        await checks(fleet).run()
    async with fleet.database.reading() as session:
        told = (await session.scalars(select(SubjectEvent).order_by(SubjectEvent.id))).all()
        version = await session.scalar(select(Cluster.kubernetes_version))
    assert [(event.subject_id, event.change) for event in told] == [
        (cluster_id, "health_changed"),
        (cluster_id, "version_changed"),
    ]
    assert told[0].data == {
        "id": str(cluster_id), "name": "lab", "from": "UNKNOWN", "to": "HEALTHY", "reasons": []
    }  # fmt: skip
    assert (told[1].data["from"], told[1].data["to"]) == (None, version)
    assert version is not None
    assert version.startswith("v1.")


async def test_a_server_certificate_that_ends_soon_is_warned_of(fleet: Fleet, server: KubernetesServer) -> None:
    cluster_id = await fleet.add(server)
    async with fleet.access.open(cluster_id, operation="look") as door:
        await door.client.read("/version")
        end = door.client.certificate_ends_at
    assert end is not None
    shortly = HealthChecks(fleet.database, fleet.access, ClockAt(end - timedelta(days=3)))
    for _ in range(2):
        await shortly.run()
    assert "certificate-expires" in (await shown(fleet, cluster_id))[1]


async def test_many_dead_clusters_cost_one_deadline_together(fleet: Fleet, server: KubernetesServer) -> None:
    ids = [await fleet.add(server, name=f"dead-{number}") for number in range(40)]
    deadline_s, one_by_one_s = 2.0, 2.0 * len(ids)
    with server.fault(Fault("latency", seconds=30)):
        begun = time.monotonic()
        await checks(fleet, deadline_s=deadline_s).run()
        assert time.monotonic() - begun < one_by_one_s / 4
    assert {(await shown(fleet, one))[0] for one in ids} == {ClusterHealth.UNKNOWN}


async def test_health_leaves_the_version_of_the_cluster_alone(fleet: Fleet, server: KubernetesServer) -> None:
    cluster_id = await fleet.add(server)

    async def row() -> tuple[int, Any]:
        async with fleet.database.reading() as session:
            found = await session.execute(select(Cluster.version, Cluster.updated_at).where(Cluster.id == cluster_id))
            version, updated_at = found.one()
        return version, updated_at

    before = await row()
    for _ in range(2):
        await checks(fleet).run()
    assert await shown(fleet, cluster_id) == (ClusterHealth.DEGRADED, ["inventory-old"])
    assert await row() == before


async def test_nodes_and_gpus_that_fail_are_named_and_forgotten_when_they_heal(
    fleet: Fleet, server: KubernetesServer
) -> None:
    name = put_node(server, a100x8())
    put_node(server, sapphire_rapids(), name="cpu-1")
    cluster_id = await fleet.add(server)
    look = nodes_of(fleet, cluster_id)
    async with fleet.database.writing() as session:
        profile = as_json(read_cluster([a100x8()]))
        await session.execute(update(Cluster).where(Cluster.id == cluster_id).values(hardware_profile=profile))
    health = checks(fleet)
    async with fleet.watching():
        await complete(fleet, cluster_id)
        change(server, "Node", "cpu-1", not_ready, status=True)
        seven = with_labels(with_resources(a100x8(), {"nvidia.com/gpu": "7"}))
        change(server, "Node", name, lambda node: node.update(status=seven["status"]), status=True)
        await until(look, lambda nodes: not nodes["cpu-1"].ready and nodes[name].pools[0].advertised == 7)
        await health.run()
        await health.run()
        assert await shown(fleet, cluster_id) == (ClusterHealth.DEGRADED, ["nodes-not-ready", "gpus-unhealthy"])
        change(server, "Node", name, lambda node: node["metadata"]["labels"].update({"nvidia.com/gpu.count": "7"}))
        await until(look, lambda nodes: len(nodes[name].gpus) == 7)
        await health.run()
        assert await shown(fleet, cluster_id) == (ClusterHealth.DEGRADED, ["nodes-not-ready", "gpus-lost"])
        change(server, "Node", "cpu-1", lambda node: node.update(status=sapphire_rapids()["status"]), status=True)
        change(server, "Node", name, lambda node: node["metadata"]["labels"].update({"nvidia.com/gpu.count": "8"}))
        change(server, "Node", name, lambda node: node.update(status=a100x8()["status"]), status=True)
        await until(look, lambda nodes: nodes["cpu-1"].ready and nodes[name].pools[0].advertised == 8)
        await until(look, lambda nodes: len(nodes[name].gpus) == 8)
        await health.run()
        await health.run()
        assert await shown(fleet, cluster_id) == (ClusterHealth.HEALTHY, [])


async def test_an_add_on_without_a_ready_pod_is_told(fleet: Fleet, server: KubernetesServer) -> None:
    cluster_id = await fleet.add(server)
    put(server, _deployment("nfd-master", release="nfd"))
    async with fleet.database.writing() as session:
        for name, state in ((AddonName.NFD, AddonState.READY), (AddonName.HAMI, AddonState.FAILED)):
            session.add(
                ClusterAddon(
                    cluster_id=cluster_id,
                    name=name,
                    owner=AddonOwner.OURS,
                    state=state,
                    release=name.value,
                    namespace="default",
                    detail="the chart could not be had",
                )
            )
    for _ in range(2):
        await checks(fleet).run()
    async with fleet.database.reading() as session:
        reasons = await session.scalar(select(Cluster.health_reasons).where(Cluster.id == cluster_id))
    told = [reason["detail"] for reason in reasons or [] if reason["code"] == "add-on-failing"]
    assert told == [
        "Add-on hami failed: the chart could not be had.",
        "Add-on nfd does not run: no pod of deployment nfd-master is ready.",
    ]


async def test_a_slow_cluster_does_not_hold_up_the_others(fleet: Fleet, server: KubernetesServer) -> None:
    cluster_id = await fleet.add(server)
    with server.fault(Fault("latency", seconds=5)):
        for _ in range(2):
            await checks(fleet, deadline_s=0.2).run()
    assert await shown(fleet, cluster_id) == (ClusterHealth.UNREACHABLE, ["unreachable"])


async def test_a_cluster_that_leaves_ready_meanwhile_keeps_its_health(fleet: Fleet, server: KubernetesServer) -> None:
    cluster_id = await fleet.add(server)
    async with fleet.database.writing() as session:
        await session.execute(text("update clusters set status = 'DELETING'"))
    await checks(fleet).run()
    assert await shown(fleet, cluster_id) == (ClusterHealth.UNKNOWN, [])


def _deployment(name: str, *, release: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/instance": release}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "nfd"}]},
            },
        },
    }
