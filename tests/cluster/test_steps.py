"""What single steps of onboarding do to the cluster, the credential and the row."""

from typing import Any
from uuid import uuid4

import pytest

from budcluster.cluster.models import ClusterStatus
from budcluster.durable.errors import NonRetryableError
from budcluster.kube.errors import NotFound, ServerFailed, Unreachable
from budcluster.kube.ownership import SYSTEM_NAMESPACE, token_secret
from budcluster.kube.playbooks import AnsibleMissing, PlaybookMissing, TaskFailed
from budcluster.kube.resources import SECRETS
from budcluster.operations.journal import Journal, Journals
from budcluster.operations.models import StepStatus
from sandbox.kubernetes.cluster import Options
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.cluster.conftest import CALL, ByHand, make_token, prepared
from tests.kube.certificates import OTHER, b64


class Killed(Exception):
    """The process ended here."""


class ForgetfulJournals(Journals):
    """The process dies once what a step did is in the world, before it is written down that the step is done."""

    def of(self, *arguments: Any, **options: Any) -> Journal:
        journal = super().of(*arguments, **options)

        async def dies(*_: object) -> None:
            raise Killed

        journal._succeed = dies  # type: ignore[method-assign]
        return journal


async def test_a_step_killed_after_it_kept_its_credential_is_simply_done_again(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    cluster_id = await by_hand.registered()
    payload = await by_hand.asked(cluster_id, bare_cluster.kubeconfig())
    forgetful = ForgetfulJournals(by_hand.database, by_hand.notices)
    with pytest.raises(Killed):
        await by_hand.onboarding(forgetful).prepare_cluster(payload, CALL)
    assert (await by_hand.row(cluster_id)).kubeconfig_encrypted is not None
    await by_hand.onboarding().prepare_cluster(payload, CALL)
    assert (await by_hand.step(payload, "prepare_cluster")).status is StepStatus.SUCCEEDED
    assert by_hand.playbooks.runs == 2


async def test_tokens_from_before_end_once_our_own_is_stored_and_a_death_before_that_harms_nothing(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    async with by_hand.administrator(bare_cluster) as client:
        cluster_id = await by_hand.registered()
        await prepared(client, claim={"cluster": str(cluster_id), "name": "lab"})
        await client.delete(SECRETS, token_secret(cluster_id), namespace=SYSTEM_NAMESPACE)
        ours_of_old = bare_cluster.kubeconfig(token=await make_token(client, "budcluster-token"))
        payload = await by_hand.asked(cluster_id, ours_of_old)
        forgetful = ForgetfulJournals(by_hand.database, by_hand.notices)
        with pytest.raises(Killed):  # the upload is needed again
            await by_hand.onboarding(forgetful).prepare_cluster(payload, CALL)
        dying = Fault("unavailable", verbs=("delete",), resources=("secrets",))
        with bare_cluster.fault(dying), pytest.raises(ServerFailed):
            await by_hand.onboarding().prepare_cluster(payload, CALL)
        async with by_hand.access().open(cluster_id, operation="test") as door:
            await door.client.read("/version")
        assert await client.get(SECRETS, "budcluster-token", namespace=SYSTEM_NAMESPACE)
        for _ in range(2):
            await by_hand.onboarding().prepare_cluster(payload, CALL)
        with pytest.raises(NotFound):
            await client.get(SECRETS, "budcluster-token", namespace=SYSTEM_NAMESPACE)
    async with by_hand.access().open(cluster_id, operation="test") as door:
        await door.client.read("/version")
    assert by_hand.playbooks.runs == 2


async def test_an_operation_given_up_before_it_ended_the_tokens_leaves_an_error_and_its_retry_ends_them(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    cluster_id = await by_hand.registered()
    payload = await by_hand.asked(cluster_id, bare_cluster.kubeconfig())
    dying = Fault("unavailable", verbs=("delete",), resources=("secrets",))
    async with by_hand.administrator(bare_cluster) as client:
        await prepared(client, claim={"cluster": str(cluster_id), "name": "lab"})
        await make_token(client, "budcluster-token")
        with bare_cluster.fault(dying), pytest.raises(ServerFailed):
            await by_hand.onboarding().prepare_cluster(payload, CALL)
        assert (await by_hand.step(payload, "prepare_cluster")).status is StepStatus.SUCCEEDED
        await by_hand.failed(payload, "prepare_cluster")
        assert (await by_hand.row(cluster_id)).status is ClusterStatus.ERROR
        assert await by_hand.uploads(cluster_id) == 0

        answer = await by_hand.client.post(f"/operations/{payload.operation_id}/retry")
        assert answer.status_code == 202, answer.text
        again = payload.model_copy(update={"attempt": answer.json()["attempt"]})
        await by_hand.onboarding().prepare_cluster(again, CALL)
        with pytest.raises(NotFound):
            await client.get(SECRETS, "budcluster-token", namespace=SYSTEM_NAMESPACE)
    assert by_hand.playbooks.runs == 1


async def test_no_token_ends_in_a_cluster_that_was_taken_over_meanwhile(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    heir = str(uuid4())
    cluster_id = await by_hand.registered()
    payload = await by_hand.asked(cluster_id, bare_cluster.kubeconfig())
    dying = Fault("unavailable", verbs=("list",), resources=("secrets",))
    with bare_cluster.fault(dying), pytest.raises(ServerFailed):
        await by_hand.onboarding().prepare_cluster(payload, CALL)
    async with by_hand.administrator(bare_cluster) as client:
        await prepared(client, claim={"cluster": heir, "name": "theirs"})
        with pytest.raises(NonRetryableError, match=heir):
            await by_hand.onboarding().prepare_cluster(payload, CALL)
        assert await client.get(SECRETS, token_secret(heir), namespace=SYSTEM_NAMESPACE)


async def test_a_step_that_is_done_is_not_done_again_and_leaves_the_upload_to_the_end(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    cluster_id = await by_hand.registered()
    payload = await by_hand.asked(cluster_id, bare_cluster.kubeconfig())
    for _ in range(2):  # killed before it was told to the engine, it is done again
        await by_hand.onboarding().prepare_cluster(payload, CALL)
        assert await by_hand.uploads(cluster_id) == 1
    assert by_hand.playbooks.runs == 1


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_cluster_that_a_budcluster_manages_is_refused(
    by_hand: ByHand, bare_cluster: KubernetesServer, is_known: bool
) -> None:
    other = await by_hand.registered("other") if is_known else uuid4()
    async with by_hand.administrator(bare_cluster) as client:
        await prepared(client, claim={"cluster": str(other), "name": "theirs"})
    cluster_id = await by_hand.registered()
    payload = await by_hand.asked(cluster_id, bare_cluster.kubeconfig())
    with pytest.raises(NonRetryableError, match=str(other)):
        await by_hand.onboarding().check_access(payload, CALL)
    error = (await by_hand.step(payload, "check_access")).error or {}
    assert error["type"] == ("cluster-known-already" if is_known else "cluster-managed-elsewhere")
    if not is_known:
        assert '"take_over": true' in error["detail"]


async def test_the_cluster_of_a_lost_database_can_be_taken_over(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    async with by_hand.administrator(bare_cluster) as client:
        await prepared(client, claim={"cluster": str(uuid4()), "name": "lost"})
    payload = await by_hand.asked(await by_hand.registered(), bare_cluster.kubeconfig(), take_over=True)
    await by_hand.onboarding().check_access(payload, CALL)
    await by_hand.onboarding().prepare_cluster(payload, CALL)
    assert (await by_hand.step(payload, "prepare_cluster")).status is StepStatus.SUCCEEDED
    assert by_hand.playbooks.variables["take_over"] is True


async def test_the_same_cluster_under_another_address_is_known_already(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    first = await by_hand.registered("first")
    payload = await by_hand.asked(first, bare_cluster.kubeconfig())
    await by_hand.onboarding().check_access(payload, CALL)
    elsewhere = bare_cluster.kubeconfig().replace("127.0.0.1", "localhost")
    payload = await by_hand.asked(await by_hand.registered("second"), elsewhere)
    with pytest.raises(NonRetryableError, match=str(first)):
        await by_hand.onboarding().check_access(payload, CALL)
    assert ((await by_hand.step(payload, "check_access")).error or {})["type"] == "cluster-known-already"


async def test_a_cluster_that_moved_is_reached_again_once_it_is_onboarded_with_its_new_address(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    cluster_id = await by_hand.registered()
    steps = by_hand.onboarding()
    for kubeconfig in (bare_cluster.kubeconfig(), bare_cluster.kubeconfig().replace("127.0.0.1", "localhost")):
        payload = await by_hand.asked(cluster_id, kubeconfig)
        await steps.check_access(payload, CALL)
        await steps.prepare_cluster(payload, CALL)
        await by_hand.succeeded(payload)
    assert "localhost" in str((await by_hand.row(cluster_id)).server)
    async with by_hand.access().open(cluster_id, operation="test") as door:
        assert "localhost" in door.kubeconfig.server
        await door.client.read("/version")


async def test_a_server_that_is_not_there_is_tried_again_and_named_meanwhile(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    dead = bare_cluster.kubeconfig().replace(str(bare_cluster.port), "1")
    payload = await by_hand.asked(await by_hand.registered(), dead)
    with pytest.raises(Unreachable):
        await by_hand.onboarding().check_access(payload, CALL)
    step = await by_hand.step(payload, "check_access")
    assert (step.status, (step.error or {})["type"]) == (StepStatus.RUNNING, "unreachable")


async def test_a_certificate_authority_of_somebody_else_is_final(
    by_hand: ByHand, bare_cluster: KubernetesServer
) -> None:
    stranger = bare_cluster.kubeconfig().replace(b64(bare_cluster.ca_pem.encode()), b64(OTHER.certificate))
    payload = await by_hand.asked(await by_hand.registered(), stranger)
    with pytest.raises(NonRetryableError, match="certificate"):
        await by_hand.onboarding().check_access(payload, CALL)


async def test_a_token_that_has_ended_is_final(by_hand: ByHand, bare_cluster: KubernetesServer) -> None:
    payload = await by_hand.asked(await by_hand.registered(), bare_cluster.kubeconfig(token="ended"))
    with pytest.raises(NonRetryableError, match="expired"):
        await by_hand.onboarding().check_access(payload, CALL)


async def test_a_kubernetes_that_is_too_old_is_refused_with_the_version_that_is_needed(by_hand: ByHand) -> None:
    with KubernetesServer(Options(version="1.22.3")) as old:
        payload = await by_hand.asked(await by_hand.registered(), old.kubeconfig())
        with pytest.raises(NonRetryableError, match=r"1\.25"):
            await by_hand.onboarding().check_access(payload, CALL)


@pytest.mark.parametrize("failure", [PlaybookMissing("no onboard.yml"), AnsibleMissing("no ansible")], ids=str)
async def test_a_playbook_that_cannot_be_run_here_ends_the_onboarding(
    by_hand: ByHand, bare_cluster: KubernetesServer, failure: Exception
) -> None:
    payload = await by_hand.asked(await by_hand.registered(), bare_cluster.kubeconfig())
    by_hand.playbooks.fails_with = failure
    with pytest.raises(NonRetryableError, match=str(failure)):
        await by_hand.onboarding().prepare_cluster(payload, CALL)


async def test_a_task_that_fails_is_named_and_tried_again(by_hand: ByHand, bare_cluster: KubernetesServer) -> None:
    payload = await by_hand.asked(await by_hand.registered(), bare_cluster.kubeconfig())
    by_hand.playbooks.fails_with = TaskFailed("Bind the role", "403 Forbidden")
    with pytest.raises(TaskFailed):
        await by_hand.onboarding().prepare_cluster(payload, CALL)
    step = await by_hand.step(payload, "prepare_cluster")
    assert step.error == {
        "type": "task-failed", "detail": "Bind the role: 403 Forbidden", "step": "prepare_cluster",
        "next_step": "Retry the operation; if it fails again, read its log lines.",
    }  # fmt: skip
