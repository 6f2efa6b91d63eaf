"""Rows follow what happens in a simulated cluster; causes are found, shown, and cleared; failed runs are kept."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from budcluster.deployment.logs.attempts import Attempts
from budcluster.deployment.models import Deployment, DeploymentStatus
from budcluster.deployment.watching.cluster_eye import telling_of
from budcluster.deployment.watching.status import Damping, is_ready
from budcluster.deployment.watching.watcher import DeploymentWatcher
from budcluster.kit.clock import SystemClock
from budcluster.operations.models import Claim, Operation, SubjectEvent, SubjectType
from sandbox.kubernetes.faults import Fault
from tests.deployment.live import NAMESPACE, Live, Obj, chatty, runtime, service, until, workload
from tests.fixtures.app import client_of, quiet_service, running

ROCM = "vllm/vllm-openai-rocm:v0.33.0"
QUIET = {"name": "runtime", "image": "nginx:1.29"}
S = DeploymentStatus


def amd(args: list[str], *, image: str = ROCM, gpus: int = 1, memory: str = "64Gi") -> Obj:
    """vLLM on AMD's GPUs, which need no operator."""
    container = runtime(args, image=image, gpus=0, memory=memory)
    container["resources"]["limits"]["amd.com/gpu"] = str(gpus)
    return container


@asynccontextmanager
async def watching(live: Live) -> AsyncIterator[None]:
    kept = frozenset({live.cluster_id})
    attempts = Attempts(live.database, live.vault)
    damping = Damping(fail_after_s=0.3, heal_after_s=0.3)
    watcher = DeploymentWatcher(live.database, live.access, attempts, SystemClock(), kept=lambda: kept, damping=damping)
    task = asyncio.create_task(watcher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def row_of(live: Live, deployment_id: UUID) -> Callable[[], Awaitable[Deployment]]:
    async def look() -> Deployment:
        return await live.row(deployment_id)

    return look


def kind_of(deployment: Deployment) -> str | None:
    return (deployment.diagnosis or {}).get("type")


async def placed(live: Live, container: Obj, **options: Any) -> UUID:
    deployment_id = await live.add(**options)
    row = await live.row(deployment_id)
    live.put(service(row))
    live.put(workload(row, container))
    return deployment_id


async def test_a_deployment_that_becomes_ready_heals_and_a_lost_release_is_said(live: Live) -> None:
    deployment_id = await placed(live, QUIET, status=S.FAILED)
    look = row_of(live, deployment_id)
    async with watching(live):
        healed = await until(look, lambda row: row.status is S.RUNNING)
        assert (healed.replicas_ready, healed.servable, healed.error, healed.diagnosis) == (1, True, None, None)
        live.remove("Deployment", healed.helm_release)
        missing = await until(look, lambda row: kind_of(row) == "release-missing")
        assert missing.diagnosis is not None
        assert "somebody deleted it" in missing.diagnosis["detail"]
        failed = await until(look, lambda row: row.status is S.FAILED)
    assert not failed.servable
    async with live.database.reading() as session:
        told = (await session.scalars(select(SubjectEvent).order_by(SubjectEvent.id))).all()
    assert [(event.subject_id, event.change, event.data["from"], event.data["to"]) for event in told] == [
        (deployment_id, "status_changed", "FAILED", "RUNNING"),
        (deployment_id, "status_changed", "RUNNING", "FAILED"),
    ]


async def test_an_edit_from_outside_is_said_and_zero_copies_do_not_run(live: Live) -> None:
    deployment_id = await placed(live, QUIET)
    look = row_of(live, deployment_id)
    async with watching(live):
        ready = await until(look, lambda row: row.replicas_ready == 1)
        live.change("Deployment", ready.helm_release, lambda obj: obj["spec"].update(replicas=0))
        failed = await until(look, lambda row: row.status is S.FAILED)
        assert kind_of(failed) == "edited-outside"
        live.change("Deployment", ready.helm_release, lambda obj: obj["spec"].update(replicas=1))
        await until(look, lambda row: row.status is S.RUNNING and row.diagnosis is None)


async def test_copies_that_no_service_leads_to_do_not_serve(live: Live) -> None:
    deployment_id = await placed(live, QUIET)
    look = row_of(live, deployment_id)
    async with watching(live):
        row = await until(look, lambda row: row.servable)
        live.remove("Service", row.helm_release)
        lost = await until(look, lambda row: row.status is S.FAILED)
        assert (kind_of(lost), lost.servable, lost.replicas_ready) == ("service-missing", False, 1)
        live.put(service(row))
        await until(look, lambda row: row.status is S.RUNNING and row.servable and row.diagnosis is None)


async def test_an_operation_keeps_the_status_and_the_rest_is_told(live: Live) -> None:
    deployment_id = await placed(live, QUIET, status=S.DEPLOYING)
    async with live.database.writing() as session:
        session.add(
            Operation(
                kind="deploy_model", subject_type=SubjectType.DEPLOYMENT, subject_id=deployment_id, subject_name="llm",
                claim=Claim.HOLDING, workflow="deploy_model", actor="test",
            )
        )  # fmt: skip
    async with watching(live):
        row = await until(row_of(live, deployment_id), lambda row: row.servable)
    assert (row.status, row.replicas_ready) == (S.DEPLOYING, 1)


async def test_what_a_deletion_took_in_part_does_not_heal_by_itself(live: Live) -> None:
    half, whole = [await placed(live, QUIET, status=S.FAILED) for _ in range(2)]
    error = {"operation_id": str(uuid4()), "detail": "It could not be uninstalled."}
    async with live.database.writing() as session:
        await session.execute(update(Deployment).where(Deployment.id == half).values(half_removed=True, error=error))
    async with watching(live):
        await until(row_of(live, half), lambda row: row.replicas_ready == 1)
        await until(row_of(live, whole), lambda row: row.status is S.RUNNING)
        row = await live.row(half)
    assert (row.status, row.servable, row.endpoints, row.error) == (S.FAILED, False, [], error)


async def test_an_outage_of_the_api_is_survived(live: Live) -> None:
    deployment_id = await placed(live, QUIET)
    look = row_of(live, deployment_id)
    async with watching(live):
        row = await until(look, lambda row: row.replicas_ready == 1)
        live.server.be_gone(1)
        await asyncio.to_thread(live.change, "Deployment", row.helm_release, lambda obj: obj["spec"].update(replicas=2))
        await until(look, lambda row: row.replicas_ready == 2)


async def test_after_an_outage_nothing_is_told_from_before_it_though_no_watch_has_caught_up(live: Live) -> None:
    deployment_id = await placed(live, QUIET)
    look = row_of(live, deployment_id)

    async def ready_there() -> int:
        return sum(is_ready(pod) for pod in live.pods(deployment_id))

    async with watching(live):
        row = await until(look, lambda row: row.replicas_ready == 1)
        with live.server.gone():
            live.change("Deployment", row.helm_release, lambda obj: obj["spec"].update(replicas=2))
            await until(ready_there, lambda ready: ready == 2)
            live.server.call(lambda: live.server.cluster.faults.add(Fault("latency", verbs=("watch",), seconds=600)))
        await until(look, lambda row: row.replicas_ready == 2)


async def test_what_the_database_does_not_know_is_left_alone(live: Live) -> None:
    known = await placed(live, QUIET)
    stranger = Deployment(id=uuid4(), helm_release="bud-stranger", replicas_desired=1)
    live.put(workload(stranger, QUIET))
    async with watching(live):
        await until(row_of(live, known), lambda row: row.replicas_ready == 1)
    found = live.server.call(lambda: live.server.cluster.store.find("Deployment", "budcluster-models", "bud-stranger"))
    assert found is not None


@pytest.mark.parametrize(
    ("args", "options", "wanted"),
    [
        (["meta-llama/Llama-3.1-8B-Instruct"], {}, {"model-gated"}),
        (["Qwen/Qwen3-8B"], {"image": "vllm/vllm-openai-rocm:v9.9.9"}, {"image-not-found"}),
        (["Qwen/Qwen3-8B"], {"gpus": 9, "memory": "1Gi"}, {"gpu-full"}),
        (["Qwen/Qwen3-32B", "--gpu-memory-utilization", "0.1"], {}, {"gpu-memory", "weights-too-large"}),
        (["Qwen/Qwen3-8B", "--no-such-flag"], {}, {"unknown-flag"}),
        (["Qwen/Qwen3-8B", "--max-model-len", "8192"], {"memory": "4Gi"}, {"host-memory"}),
    ],
)
async def test_the_cause_of_a_failure_is_on_the_deployment_soon(
    live: Live, args: list[str], options: dict[str, Any], wanted: set[str]
) -> None:
    deployment_id = await placed(live, amd(args, **options))
    async with watching(live):
        row = await until(row_of(live, deployment_id), lambda row: kind_of(row) in wanted)
        assert row.diagnosis is not None
        assert row.diagnosis["pod"].startswith(row.helm_release)
        assert row.diagnosis["fix"]
        assert row.diagnosis["lines"] or row.diagnosis["exit_code"] == 137


async def test_a_claim_without_a_storage_class_is_the_cause_of_the_pod_that_waits_for_it(live: Live) -> None:
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "cache", "namespace": NAMESPACE},
        "spec": {"storageClassName": "absent", "accessModes": ["ReadWriteOnce"],
                 "resources": {"requests": {"storage": "1Gi"}}},
    }  # fmt: skip
    deployment_id = await live.add()
    release = workload(await live.row(deployment_id), QUIET)
    volumes = release["spec"]["template"]["spec"]["volumes"]
    volumes.append({"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}})
    live.put(claim)
    live.put(service(await live.row(deployment_id)))
    live.put(release)
    async with watching(live):
        row = await until(row_of(live, deployment_id), lambda row: kind_of(row) == "storage-class-missing")
    assert row.diagnosis is not None
    assert 'storageclass.storage.k8s.io "absent" not found' in row.diagnosis["lines"][0]


async def test_a_lost_node_is_the_cause_until_it_is_back(live: Live) -> None:
    deployment_id = await placed(live, QUIET)
    look = row_of(live, deployment_id)
    async with watching(live):
        await until(look, lambda row: row.replicas_ready == 1)
        node = live.pods(deployment_id)[0]["spec"]["nodeName"]
        live.server.call(lambda: live.server.cluster.simulation.inject("node_not_ready", node=node))
        await until(look, lambda row: row.status is S.FAILED and kind_of(row) == "node-lost")
        live.server.call(lambda: live.server.cluster.simulation.inject("node_ready", node=node))
        await until(look, lambda row: row.status is S.RUNNING and row.diagnosis is None)


def test_of_pods_that_were_replaced_nothing_is_told_once_the_new_ones_serve() -> None:
    def pod(*, ready: bool = False, **more: Any) -> Obj:
        metadata = {"deletionTimestamp": "2026-11-24T10:00:00Z"} if more.pop("leaving", False) else {}
        conditions = [{"type": "Ready", "status": str(ready)}]
        return {"metadata": metadata, "status": {"conditions": conditions, **more}}

    evicted, leaving, loading, ready = pod(phase="Failed"), pod(leaving=True), pod(), pod(ready=True)
    assert telling_of([evicted, leaving, ready]) == [ready]
    assert telling_of([evicted, leaving, loading]) == [loading, leaving]
    assert telling_of([evicted]) == [evicted]


async def test_a_cured_cause_is_cleared_and_its_log_is_still_there(live: Live) -> None:
    deployment_id = await placed(
        live, chatty("runtime", "echo token hf_" + "kWq9ZbTn4LxRvU2sEyPfHd7MgJcA3oXi5B; exit 3")
    )
    look = row_of(live, deployment_id)
    async with watching(live):
        broken = await until(look, lambda row: row.status is S.FAILED and kind_of(row) == "crash")
        assert broken.error is not None
        live.change(
            "Deployment", broken.helm_release, lambda obj: obj["spec"]["template"]["spec"].update(containers=[QUIET])
        )
        await until(look, lambda row: row.status is S.RUNNING and row.error is None and row.diagnosis is None)
    live.remove("Deployment", broken.helm_release)
    async with running(quiet_service(live.settings)) as app, client_of(app) as client:
        every = (await client.get(f"/deployments/{deployment_id}/attempts")).json()["items"]
        # A run whose pod was taken away before anybody could read its log has none.
        kept = [one for one in every if one["lines"]]
        assert kept[0]["exit_code"] == 3
        assert len({(one["pod"], one["restart"]) for one in every}) == len(every)
        log = await client.get(f"/deployments/{deployment_id}/logs", params={"attempt": kept[0]["id"]})
        unknown = await client.get(f"/deployments/{deployment_id}/logs", params={"attempt": str(uuid4())})
    assert log.text == "token ***\n"
    assert unknown.status_code == 404
