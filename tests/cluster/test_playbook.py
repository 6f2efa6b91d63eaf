"""`playbooks/onboard.yml` with real Ansible: what it grants, that a second run changes nothing, and how it fails."""

import asyncio
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import pytest

from budcluster.bootstrap import make_doors
from budcluster.config import Settings
from budcluster.kit.clock import SystemClock
from budcluster.kube.client import ClusterClient
from budcluster.kube.door import Door
from budcluster.kube.errors import Unauthorized
from budcluster.kube.kubeconfig import Kubeconfig, read_kubeconfig
from budcluster.kube.ownership import ACCOUNT, NARROW, SYSTEM_NAMESPACE, token_secret
from budcluster.kube.playbooks import PlaybookError, PlaybookRun, TaskFailed
from budcluster.kube.resources import NAMESPACES, NODES, PODS, SECRETS, Resource
from budcluster.provisioning.adoption import CLAIMS
from budcluster.provisioning.ansible import onboard
from budcluster.provisioning.ansible.onboard import NamesTaken
from sandbox.kubernetes.faults import Fault
from sandbox.kubernetes.server import KubernetesServer
from tests.cluster.conftest import BINDINGS, make_token, named, prepared

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MODELS = "budcluster-models"
NO_CERTIFICATE: Final[dict[str, Any]] = {"client_certificate": None, "client_key": None}
ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings")


class Recorder:
    """A door that remembers what its playbooks did."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.kubeconfig, self.client = door.kubeconfig, door.client
        self.last: PlaybookRun | None = None

    async def play(self, playbook: str, **options: Any) -> PlaybookRun:
        self.last = await self._door.play(playbook, **options)
        return self.last


async def prepare(door: Any, *, manage_addons: bool, number: int = 1, **more: bool) -> Kubeconfig:
    about = {"cluster_id": UUID(int=number), "name": "{{ lookup('pipe','id') }}", "models_namespace": MODELS}
    return await onboard.prepare(door, manage_addons=manage_addons, **about, **more)  # type: ignore[arg-type]


async def test_both_roles_are_granted_exactly_and_a_second_run_changes_nothing(
    cluster_settings: Settings, bare_cluster: KubernetesServer
) -> None:
    upload = read_kubeconfig(bare_cluster.kubeconfig(), now=SystemClock().now(), allow_local=True)
    async with make_doors(cluster_settings).open(upload) as opened:
        door = Recorder(opened)
        await prepared(opened.client, claim={"cluster": str(UUID(int=1)), "name": "lab"})
        await opened.client.delete(SECRETS, token_secret(UUID(int=1)), namespace=SYSTEM_NAMESPACE)
        of_old = first = replace(upload, token=await make_token(opened.client, f"{ACCOUNT}-token"), **NO_CERTIFICATE)
        for manage_addons in (True, False):
            async with make_doors(cluster_settings).open(first) as own:  # our own account each time
                first = await prepare(own, manage_addons=manage_addons)
            tasks: list[str] = []
            second = await onboard.prepare(
                door,  # type: ignore[arg-type]
                cluster_id=UUID(int=1),
                name="{{ lookup('pipe','id') }}",
                manage_addons=manage_addons,
                models_namespace=MODELS,
                on_task=tasks.append,
            )
            assert second == first
            assert door.last is not None
            assert (door.last.changed, len(tasks)) == (0, onboard.TASKS)
            async with ClusterClient(first) as client:
                assert await client.may("*", Resource("*", "*", "*")) is manage_addons
        claim = await opened.client.get(Resource("budcluster.io", "v1", "claims"), "this-cluster")
        assert claim["spec"] == {"cluster": str(UUID(int=1)), "name": "{{ lookup('pipe','id') }}"}
    assert await is_accepted(of_old)
    async with ClusterClient(first) as client:
        for _ in range(2):
            await onboard.end_other_tokens(client, UUID(int=1))
        assert not await is_accepted(of_old)
        assert await client.may("list", NODES)
        assert await client.may("list", PODS)
        assert await client.may("create", SECRETS, namespace=MODELS)
        assert not await client.may("list", SECRETS)
        assert not await client.may("get", SECRETS, namespace="kube-system")
        assert not await client.may("create", PODS, namespace="default")
        assert not await client.may("get", PODS, namespace="default", subresource="log")
    async with make_doors(cluster_settings).open(first) as own:
        assert await onboard.clean_up(own) == []
    names = [await there(bare_cluster, kind) for kind in ("Namespace", "ClusterRole", "ClusterRoleBinding", "Role")]
    assert not [name for found in names for name in found if name in {SYSTEM_NAMESPACE, ACCOUNT, NARROW}]
    assert MODELS in names[0]


async def test_a_take_over_ends_the_tokens_of_the_former_service_and_makes_bindings_of_an_older_version_anew(
    cluster_settings: Settings, bare_cluster: KubernetesServer
) -> None:
    upload = read_kubeconfig(bare_cluster.kubeconfig(), now=SystemClock().now(), allow_local=True)
    async with make_doors(cluster_settings).open(upload) as opened:
        door = Recorder(opened)
        former = await prepare(door, manage_addons=False)
        for kind, place in ((BINDINGS, {}), (ROLE_BINDINGS, {"namespace": MODELS})):
            binding = await opened.client.get(kind, NARROW, **place)
            await opened.client.delete(kind, NARROW, **place)
            of_old = {**binding["roleRef"], "kind": "ClusterRole", "name": ACCOUNT}
            await opened.client.create(kind, {**bare(binding), "roleRef": of_old}, **place)
        await opened.client.create(ROLES, named("rbac.authorization.k8s.io/v1", "ClusterRole", ACCOUNT) | {"rules": []})
        with pytest.raises(TaskFailed, match=f"Another budcluster manages this cluster, as {UUID(int=1)}"):
            await prepare(door, manage_addons=False, number=2)
        heir = await prepare(door, manage_addons=False, number=2, take_over=True)
        assert await is_accepted(former)
        async with ClusterClient(heir) as client:
            await onboard.end_other_tokens(client, UUID(int=2))
            assert not await is_accepted(former)
            assert await client.may("list", NODES)
            assert await client.may("create", SECRETS, namespace=MODELS)
        assert ACCOUNT not in await there(bare_cluster, "ClusterRole")
        await opened.client.create(ROLES, {"metadata": {"name": ACCOUNT}, "rules": []})
        assert await prepare(door, manage_addons=False, number=2) == heir
        assert door.last is not None
        assert door.last.changed == 0
    assert ACCOUNT in await there(bare_cluster, "ClusterRole")  # somebody else's


@pytest.mark.parametrize("is_found", [False, True])
async def test_of_two_that_come_at_once_the_second_leaves_the_cluster_to_the_first(
    cluster_settings: Settings, bare_cluster: KubernetesServer, is_found: bool
) -> None:
    upload = read_kubeconfig(bare_cluster.kubeconfig(), now=SystemClock().now(), allow_local=True)
    ours, first = UUID(int=1), {"cluster": str(UUID(int=2)), "name": "theirs"}
    async with make_doors(cluster_settings).open(upload) as door, asyncio.TaskGroup() as others:
        await prepared(door.client, claim={"cluster": str(ours), "name": "lab"})
        if not is_found:
            await door.client.delete(CLAIMS, "this-cluster")

        def onboard_elsewhere(task: str) -> None:
            if task.startswith("Leave a cluster alone"):
                others.create_task(prepared(door.client, claim=first))

        with pytest.raises(TaskFailed, match="Write down who manages this cluster"):
            await onboard.prepare(
                door, cluster_id=ours, name="lab", manage_addons=True, models_namespace=MODELS,
                on_task=onboard_elsewhere,
            )  # fmt: skip
        assert (await door.client.get(CLAIMS, "this-cluster"))["spec"] == first


async def test_what_somebody_else_made_by_a_name_of_ours_is_neither_rewritten_nor_removed(
    cluster_settings: Settings, bare_cluster: KubernetesServer
) -> None:
    upload = read_kubeconfig(bare_cluster.kubeconfig(), now=SystemClock().now(), allow_local=True)
    inside, of_models = {"namespace": SYSTEM_NAMESPACE}, {"namespace": MODELS}
    async with make_doors(cluster_settings).open(upload) as door:
        client = door.client
        for name in (SYSTEM_NAMESPACE, MODELS):
            await client.create(NAMESPACES, {"metadata": {"name": name}})
        theirs = [
            await client.create(BINDINGS, {"metadata": {"name": ACCOUNT}, **to_viewers("ClusterRole")}),
            await client.create(ROLE_BINDINGS, {"metadata": {"name": NARROW}, **to_viewers("Role")}, **of_models),
            await client.get(NAMESPACES, SYSTEM_NAMESPACE),
        ]
        away = Fault("unavailable", resources=("clusterrolebindings",), times=1)
        bare_cluster.call(lambda: bare_cluster.cluster.faults.add(away))
        with pytest.raises(TaskFailed, match="See which of our names") as failed:
            await prepare(door, manage_addons=True)
        assert "503" in str(failed.value)
        assert "Traceback" not in str(failed.value)
        with pytest.raises(NamesTaken, match=f"^Namespace {SYSTEM_NAMESPACE}, ClusterRoleBinding {ACCOUNT} was not"):
            await prepare(door, manage_addons=True)
        with pytest.raises(NamesTaken, match=f"^Namespace {SYSTEM_NAMESPACE}, RoleBinding {NARROW} in {MODELS} "):
            await prepare(door, manage_addons=False)
        assert await client.get(NAMESPACES, SYSTEM_NAMESPACE) == theirs.pop()
        assert await client.get(ROLE_BINDINGS, NARROW, **of_models) == theirs.pop()

        await client.delete(ROLE_BINDINGS, NARROW, **of_models)
        await client.apply(NAMESPACES, named("v1", "Namespace", SYSTEM_NAMESPACE))
        await prepare(door, manage_addons=False)
        assert await client.get(BINDINGS, ACCOUNT) == theirs.pop()
        assert await client.get(ROLE_BINDINGS, NARROW, **inside)


def to_viewers(kind: str) -> dict[str, Any]:
    """What somebody else binds."""
    group = "rbac.authorization.k8s.io"
    return {
        "roleRef": {"apiGroup": group, "kind": kind, "name": "view"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": "viewers"}],
    }


async def is_accepted(kubeconfig: Kubeconfig) -> bool:
    """Whether the cluster still takes this credential."""
    async with ClusterClient(kubeconfig) as client:
        try:
            await client.read("/version")
        except Unauthorized:
            return False
    return True


def bare(found: dict[str, Any]) -> dict[str, Any]:
    """An object to make another one like it."""
    kept = ("name", "namespace", "labels", "ownerReferences")
    return {**found, "metadata": {key: found["metadata"][key] for key in kept if key in found["metadata"]}}


async def there(server: KubernetesServer, kind: str) -> list[str]:
    """Names of the objects of a kind."""
    return server.call(lambda: [found["metadata"]["name"] for found in server.cluster.store.list(kind)])


async def test_a_task_that_the_cluster_forbids_is_named(
    cluster_settings: Settings, bare_cluster: KubernetesServer
) -> None:
    upload = read_kubeconfig(bare_cluster.kubeconfig(), now=SystemClock().now(), allow_local=True)
    refused = Fault("forbidden", verbs=("create", "patch"), resources=("clusterrolebindings",))
    async with make_doors(cluster_settings).open(upload) as door:
        with bare_cluster.fault(refused), pytest.raises(TaskFailed, match="Grant what installing operators") as failed:
            await prepare(door, manage_addons=True)
        assert "orbidden" in str(failed.value)
        assert isinstance(failed.value, PlaybookError)
        assert await door.client.may("get", NAMESPACES)
        assert ACCOUNT not in await there(bare_cluster, "ClusterRoleBinding")
        assert BINDINGS.plural == "clusterrolebindings"
