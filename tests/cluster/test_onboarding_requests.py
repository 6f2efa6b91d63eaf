"""`POST /clusters/{id}/onboard` as far as it is answered at once: what is refused, what is kept, what is told."""

import json
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select, update

from budcluster.bootstrap import Service
from budcluster.cluster.access import kubeconfig_owner
from budcluster.cluster.models import Cluster, ClusterStatus
from budcluster.credentials.vault import Vault
from budcluster.hardware.models import InventoryGpuPod
from budcluster.kit.clock import SystemClock
from budcluster.operations.causes import Cause
from budcluster.operations.ledger import Ledger
from budcluster.operations.models import Claim, Operation, OperationStatus, StepStatus
from tests.kube.certificates import make_document

OTHER_SERVER = "https://10.0.0.6:6443"


async def register(client: httpx.AsyncClient, name: str = "lab") -> str:
    made = await client.post("/clusters", json={"name": name, "provider": "ON_PREMISES"})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def onboard(client: httpx.AsyncClient, cluster_id: str, document: Any, **more: Any) -> httpx.Response:
    kubeconfig = document if isinstance(document, str) else json.dumps(document)
    return await client.post(f"/clusters/{cluster_id}/onboard", json={"kubeconfig": kubeconfig, **more})


REFUSED = [
    (make_document(cluster={"server": "http://10.0.0.5"}), "not-https"),
    (make_document(cluster={"server": "https://127.0.0.1:6443"}), "server-address-refused"),
    (make_document(cluster={"server": "https://169.254.169.254"}), "server-address-refused"),
    (make_document(cluster={"insecure-skip-tls-verify": True}), "insecure-tls-refused"),
    (make_document(cluster={"proxy-url": "http://proxy"}), "proxy-refused"),
    (make_document(cluster={"certificate-authority-data": None}), "certificate-authority-missing"),
    (make_document(user={"token": None, "exec": {"command": "aws"}}), "exec-refused"),
    (make_document(user={"token": None, "auth-provider": {"name": "gcp"}}), "auth-provider-refused"),
    (make_document(user={"token": None, "tokenFile": "/etc/passwd"}), "file-path-refused"),
    (make_document(user={"token": None}), "credential-missing"),
    ("{{ lookup('pipe','id') }}", "kubeconfig-unreadable"),
    ("- a list", "kubeconfig-malformed"),
]


@pytest.mark.parametrize(("document", "code"), REFUSED, ids=[code for _, code in REFUSED])
async def test_an_unfit_kubeconfig_is_refused_at_once_with_its_reason(
    shared_client: httpx.AsyncClient, document: Any, code: str
) -> None:
    cluster_id = await register(shared_client, f"lab-{uuid4().hex[:8]}")
    refused = await onboard(shared_client, cluster_id, document)
    assert refused.status_code == 422, refused.text
    body = refused.json()
    assert body["type"] == "/problems/kubeconfig-not-accepted"
    assert code in [error["code"] for error in body["errors"]], body
    assert all(error["detail"] for error in body["errors"])
    assert (await shared_client.get(f"/operations?subject_id={cluster_id}")).json()["items"] == []


async def test_several_contexts_are_listed_and_one_may_be_chosen(client: httpx.AsyncClient) -> None:
    cluster_id = await register(client)
    document = make_document()
    document["contexts"].append({"name": "prod", "context": document["contexts"][0]["context"]})
    del document["current-context"]
    refused = await onboard(client, cluster_id, document)
    assert refused.status_code == 422
    assert refused.json()["contexts"] == ["ctx", "prod"]
    assert (await onboard(client, cluster_id, document, context="none")).status_code == 422
    assert (await onboard(client, cluster_id, document, context="prod")).status_code == 202


@pytest.mark.parametrize(
    "more",
    [
        {"unknown": 1},
        {"gpu_sharing": "mps"},
        {"replicas_per_gpu": 1},
        {"replicas_per_gpu": 65},
        {"context": "x" * 254},
        {"kubeconfig": ""},
        {"kubeconfig": "x" * (1024 * 1024 + 1)},
        {"manage_addons": "perhaps"},
    ],
    ids=lambda more: next(iter(more)),
)
async def test_fields_have_limits(shared_client: httpx.AsyncClient, more: dict[str, Any]) -> None:
    body = {"kubeconfig": json.dumps(make_document()), **more}
    refused = await shared_client.post(f"/clusters/{uuid4()}/onboard", json=body)
    assert refused.status_code in {413, 422}, refused.text


async def test_the_upload_is_listed_as_a_credential_without_its_secret(client: httpx.AsyncClient) -> None:
    cluster_id = await register(client)
    answer = await onboard(client, cluster_id, make_document(user={"token": "a-very-own-token"}))
    assert answer.status_code == 202
    (listed,) = (await client.get("/credentials")).json()["items"]
    assert (listed["purpose"], listed["cluster_id"]) == ("ONBOARDING", cluster_id)
    assert "a-very-own-token" not in json.dumps(listed)
    assert "secret" not in listed


async def test_the_choice_and_the_server_are_shown(client: httpx.AsyncClient) -> None:
    cluster_id = await register(client)
    await onboard(client, cluster_id, make_document(), gpu_sharing="time-slicing", replicas_per_gpu=8)
    cluster = (await client.get(f"/clusters/{cluster_id}")).json()
    assert cluster["server"] == "https://10.0.0.5:6443"
    assert (cluster["settings"]["gpu_sharing"], cluster["settings"]["replicas_per_gpu"]) == ("time-slicing", 8)
    assert cluster["adoption_report"] is None


async def test_one_server_is_one_cluster(client: httpx.AsyncClient) -> None:
    first, second = await register(client, "first"), await register(client, "second")
    assert (await onboard(client, first, make_document())).status_code == 202
    refused = await onboard(client, second, make_document())
    assert refused.status_code == 409
    assert refused.json()["cluster_id"] == first


async def in_service(client: httpx.AsyncClient, service: Service, **more: Any) -> UUID:
    """A cluster that was onboarded before."""
    cluster_id = UUID(await register(client))
    sealed = service.edge.service(Vault).seal(b"{}", kubeconfig_owner(cluster_id))
    known = {"system_uid": "uid-1", "server": "https://10.0.0.5:6443", "kubeconfig_encrypted": sealed}
    values = {"status": ClusterStatus.READY, "version": 2, **known, **more}
    async with service.edge.database.writing() as session:
        await session.execute(update(Cluster).where(Cluster.id == cluster_id).values(**values))
    return cluster_id


async def test_a_known_cluster_keeps_its_server_until_the_new_credential_is_proven(
    client: httpx.AsyncClient, service: Service
) -> None:
    cluster_id = await in_service(client, service)
    answer = await onboard(client, str(cluster_id), make_document(cluster={"server": OTHER_SERVER}))
    assert answer.status_code == 202
    assert (await client.get(f"/clusters/{cluster_id}")).json()["server"] == "https://10.0.0.5:6443"


async def ended(service: Service, cluster_id: UUID, status: OperationStatus, *, begun: str | None) -> None:
    """The onboarding ends so, in the step that had begun."""
    async with service.edge.database.writing() as session:
        found = select(Operation).where(Operation.subject_id == cluster_id, Operation.claim == Claim.HOLDING)
        operation = (await session.scalars(found)).one()
        ledger = await Ledger.open(session, operation.id)
        names = list(ledger.steps)
        for name in names[: names.index(begun) + 1] if begun else []:
            reached = StepStatus.RUNNING if name == begun else StepStatus.SUCCEEDED
            await ledger.change_step(name, status=reached, started_at=SystemClock().now())
        error = Cause(type="unauthorized", detail="no", next_step="do", step=begun)
        is_failed = status is OperationStatus.FAILED
        await service.long_work.operations.finish(ledger, session, status, error=error if is_failed else None)


@pytest.mark.parametrize(
    ("status", "begun", "ends"),
    [
        (OperationStatus.SUCCEEDED, "read_hardware", ClusterStatus.READY),
        (OperationStatus.FAILED, "check_access", ClusterStatus.READY),
        (OperationStatus.FAILED, "inspect_cluster", ClusterStatus.READY),
        (OperationStatus.FAILED, "prepare_cluster", ClusterStatus.ERROR),
        (OperationStatus.CANCELLED, None, ClusterStatus.READY),
        (OperationStatus.CANCELLED, "check_access", ClusterStatus.READY),
        (OperationStatus.CANCELLED, "prepare_cluster", ClusterStatus.ERROR),
        (OperationStatus.CANCELLED, "install_hami", ClusterStatus.ERROR),
    ],
)
async def test_a_cluster_in_service_stays_so_when_nothing_was_changed_before_the_end(
    client: httpx.AsyncClient, service: Service, status: OperationStatus, begun: str | None, ends: ClusterStatus
) -> None:
    cluster_id = await in_service(client, service)
    assert (await onboard(client, str(cluster_id), make_document())).status_code == 202
    await ended(service, cluster_id, status, begun=begun)
    cluster = (await client.get(f"/clusters/{cluster_id}")).json()
    assert cluster["status"] == ends
    assert bool(cluster["error"]) is (ends is ClusterStatus.ERROR)
    (event,) = (await client.get("/audit?action=cluster.onboarding_ended")).json()["items"]
    assert event["outcome"] == ("succeeded" if status is OperationStatus.SUCCEEDED else "failed")


@pytest.mark.parametrize(
    ("status", "begun", "more", "is_kept"),
    [
        (OperationStatus.SUCCEEDED, "read_hardware", {}, False),
        (OperationStatus.FAILED, "install_prometheus", {}, False),
        (OperationStatus.CANCELLED, "install_prometheus", {}, False),
        (OperationStatus.CANCELLED, "install_prometheus", {"keep_upload": True}, True),
        (OperationStatus.CANCELLED, "prepare_cluster", {}, True),
        (OperationStatus.CANCELLED, None, {}, True),
    ],
)
async def test_an_upload_outlives_its_onboarding_only_where_a_retry_needs_it_or_it_was_asked_for(
    client: httpx.AsyncClient, service: Service, status: OperationStatus, begun: str, more: Any, is_kept: bool
) -> None:
    cluster_id = UUID(await register(client))
    await onboard(client, str(cluster_id), make_document(), **more)
    await ended(service, cluster_id, status, begun=begun)
    assert bool((await client.get("/credentials")).json()["items"]) is is_kept


async def test_an_upload_is_forgotten_also_where_the_cluster_is_being_deleted(
    client: httpx.AsyncClient, service: Service
) -> None:
    cluster_id = UUID(await register(client))
    await onboard(client, str(cluster_id), make_document())
    assert (await client.delete(f"/clusters/{cluster_id}")).status_code == 202
    await ended(service, cluster_id, OperationStatus.CANCELLED, begun="install_prometheus")
    assert (await client.get("/credentials")).json()["items"] == []


async def test_an_upload_is_forgotten_when_newer_work_has_taken_its_retry_away(
    client: httpx.AsyncClient, service: Service
) -> None:
    cluster_id = await in_service(client, service)
    await onboard(client, str(cluster_id), make_document())
    await ended(service, cluster_id, OperationStatus.FAILED, begun="check_access")
    assert (await client.get("/credentials")).json()["items"]
    assert (await client.post(f"/clusters/{cluster_id}/detect-hardware")).status_code == 202
    assert (await client.get("/credentials")).json()["items"] == []


async def test_choices_that_are_left_out_stay_as_they_are(client: httpx.AsyncClient, service: Service) -> None:
    cluster_id = await in_service(client, service, settings={"gpu_sharing": "none", "keep_upload": True})
    assert (await onboard(client, str(cluster_id), make_document(), replicas_per_gpu=4)).status_code == 202
    settings = (await client.get(f"/clusters/{cluster_id}")).json()["settings"]
    assert settings == {"manage_addons": True, "gpu_sharing": "none", "replicas_per_gpu": 4, "keep_upload": True}


async def test_choices_of_an_onboarding_that_came_to_nothing_are_taken_back_and_return_with_its_retry(
    client: httpx.AsyncClient, service: Service
) -> None:
    cluster_id = await in_service(client, service)
    answer = await onboard(client, str(cluster_id), make_document(), manage_addons=False)

    async def manages_addons() -> bool:
        return bool((await client.get(f"/clusters/{cluster_id}")).json()["settings"]["manage_addons"])

    assert not await manages_addons()
    await ended(service, cluster_id, OperationStatus.CANCELLED, begun="check_access")
    assert await manages_addons()
    assert (await client.post(f"/operations/{answer.json()['operation_id']}/retry")).status_code == 202
    assert not await manages_addons()
    await ended(service, cluster_id, OperationStatus.FAILED, begun="prepare_cluster")
    assert not await manages_addons()


@pytest.mark.parametrize("status", [OperationStatus.FAILED, OperationStatus.CANCELLED])
async def test_a_sharing_that_was_not_carried_out_is_taken_back_and_returns_with_its_retry(
    client: httpx.AsyncClient, service: Service, status: OperationStatus
) -> None:
    cluster_id = await in_service(client, service, settings={"gpu_sharing": "time-slicing", "replicas_per_gpu": 8})
    answer = await client.post(f"/clusters/{cluster_id}/install-hami", json={"mode": "none"})
    assert answer.status_code == 202, answer.text

    async def sharing() -> str:
        return str((await client.get(f"/clusters/{cluster_id}")).json()["settings"]["gpu_sharing"])

    assert await sharing() == "none"
    await ended(service, cluster_id, status, begun="install_gpu_operator")
    assert await sharing() == "time-slicing"
    assert (await client.post(f"/operations/{answer.json()['operation_id']}/retry")).status_code == 202
    assert await sharing() == "none"
    await ended(service, cluster_id, OperationStatus.SUCCEEDED, begun="read_hardware")
    assert await sharing() == "none"


async def test_choices_of_a_first_onboarding_outlive_its_failure(client: httpx.AsyncClient, service: Service) -> None:
    cluster_id = await register(client)
    await onboard(client, cluster_id, make_document(), gpu_sharing="none")
    await ended(service, UUID(cluster_id), OperationStatus.FAILED, begun="check_access")
    assert (await onboard(client, cluster_id, make_document())).status_code == 202
    assert (await client.get(f"/clusters/{cluster_id}")).json()["settings"]["gpu_sharing"] == "none"


async def holding(service: Service, cluster_id: UUID) -> None:
    """A pod of the cluster holds a GPU, as the inventory knows."""
    container = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    document = {
        "metadata": {"namespace": "default", "name": "train"},
        "spec": {"nodeName": "gpu-1", "containers": [container]},
        "status": {"phase": "Running"},
    }
    async with service.edge.database.writing() as session:
        session.add(
            InventoryGpuPod(
                cluster_id=cluster_id, namespace="default", name="train", uid="1", node="gpu-1", phase="Running",
                document=document, digest=bytes(16),
            )
        )  # fmt: skip


@pytest.mark.parametrize(
    ("present", "more", "is_refused"),
    [
        ({}, {}, False),
        ({}, {"gpu_sharing": "hami"}, False),
        ({}, {"gpu_sharing": "none"}, True),
        ({"manage_addons": False}, {"manage_addons": True}, True),
        ({}, {"gpu_sharing": "none", "manage_addons": False}, False),
        ({}, {"gpu_sharing": "none", "force": True}, False),
    ],
)
async def test_sharing_is_not_changed_under_pods_that_hold_gpus(
    client: httpx.AsyncClient, service: Service, present: dict[str, Any], more: dict[str, Any], is_refused: bool
) -> None:
    cluster_id = await in_service(client, service, settings=present)
    await holding(service, cluster_id)
    answer = await onboard(client, str(cluster_id), make_document(), **more)
    assert answer.status_code == (409 if is_refused else 202), answer.text
    if is_refused:
        assert answer.json()["pods"] == ["default/train"]
        assert (await client.get(f"/clusters/{cluster_id}")).json()["status"] == "READY"
