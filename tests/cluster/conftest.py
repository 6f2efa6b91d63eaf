"""Steps of onboarding and deletion, called one by one: the real activities, database and API server, but no engine.

Ansible takes seconds, so its one playbook is played by hand here; `test_onboarding` runs the real one.
"""

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml
from sqlalchemy import select, update

from budcluster.bootstrap import Service, make_doors
from budcluster.cluster.access import ClusterAccess
from budcluster.cluster.activities import OnboardingActivities
from budcluster.cluster.addon_steps import AddonSteps
from budcluster.cluster.contracts import OnboardingPayload
from budcluster.cluster.deletion import DeletionActivities
from budcluster.cluster.models import Cluster
from budcluster.config import PROJECT_ROOT, Settings
from budcluster.credentials.models import Credential
from budcluster.credentials.vault import Vault
from budcluster.durable.execution import Execution
from budcluster.hardware import gpu_operator, nfd
from budcluster.hardware.catalogue import Catalogue
from budcluster.kit.clock import SystemClock
from budcluster.kube.client import ClusterClient
from budcluster.kube.door import Door, Doors
from budcluster.kube.kubeconfig import Kubeconfig, read_kubeconfig
from budcluster.kube.ownership import ACCOUNT, OWNED, SYSTEM_NAMESPACE, token_secret
from budcluster.kube.playbooks import PlaybookRun
from budcluster.kube.resources import NAMESPACES, SECRETS, Resource
from budcluster.operations.activities import OperationActivities
from budcluster.operations.contracts import Ending
from budcluster.operations.journal import Journals
from budcluster.operations.models import Operation, OperationStep
from budcluster.provisioning.adoption import CLAIMS
from sandbox.kubernetes.server import KubernetesServer
from tests.fixtures.app import client_of, quiet_service, running
from tests.fixtures.manifests import dropped_fields

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
ACCOUNTS = Resource("", "v1", "serviceaccounts")
BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings")


class PlaybookByHand:
    """Makes what `onboard.yml` makes."""

    def __init__(self) -> None:
        self.runs = 0
        self.variables: dict[str, Any] = {}
        """What the last run was given."""
        self.fails_with: Exception | None = None
        """Raised once all was made, as when Ansible is stopped at its end."""

    async def run(
        self, playbook: str, kubeconfig: Kubeconfig, *, variables: dict[str, Any], **_: object
    ) -> PlaybookRun:
        assert playbook == "onboard.yml"
        self.runs += 1
        self.variables = variables
        async with ClusterClient(kubeconfig, allow_local=True) as client:
            await prepared(client, claim=variables["claim"], is_admin=variables["manage_addons"])
        if self.fails_with is not None:
            raise self.fails_with
        return PlaybookRun(changed=0, tasks=0)


async def prepared(client: ClusterClient, *, claim: dict[str, str], is_admin: bool = True) -> None:
    """A cluster as the playbook leaves it."""
    await client.apply(NAMESPACES, named("v1", "Namespace", SYSTEM_NAMESPACE), force=True)
    definition = yaml.safe_load((PROJECT_ROOT / "playbooks" / "files" / "claim-crd.yaml").read_text())
    await client.apply(CRDS, definition, force=True)
    await client.apply(CLAIMS, named("budcluster.io/v1", "Claim", "this-cluster") | {"spec": claim}, force=True)
    inside = {"namespace": SYSTEM_NAMESPACE}
    await client.apply(ACCOUNTS, named("v1", "ServiceAccount", ACCOUNT, **inside), **inside, force=True)
    await make_token(client, token_secret(claim["cluster"]), labels={**OWNED, "budcluster.io/claim": claim["cluster"]})
    await bind(client, ACCOUNT, to="cluster-admin" if is_admin else "view")


async def make_token(client: ClusterClient, name: str, **metadata: Any) -> str:
    """A token of the service's account, in a Secret of this name. As older versions made it, where nothing is said."""
    about = {"annotations": {"kubernetes.io/service-account.name": ACCOUNT}, "namespace": SYSTEM_NAMESPACE, **metadata}
    secret = named("v1", "Secret", name, **about) | {"type": "kubernetes.io/service-account-token"}
    await client.apply(SECRETS, secret, namespace=SYSTEM_NAMESPACE, force=True)
    made = await client.get(SECRETS, name, namespace=SYSTEM_NAMESPACE)
    return base64.b64decode(made["data"]["token"]).decode()


async def bind(client: ClusterClient, name: str, *, to: str) -> None:
    """Give the service's account a role, as long as its namespace is there."""
    home = await client.get(NAMESPACES, SYSTEM_NAMESPACE)
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": SYSTEM_NAMESPACE, "uid": home["metadata"]["uid"]}
    body = named("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", name, ownerReferences=[owner]) | {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": to},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM_NAMESPACE}],
    }
    await client.apply(BINDINGS, body, force=True)


def named(version: str, kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    """An object that bears our mark."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": dict(OWNED)} | metadata}


class DoorsByHand:
    """The way to clusters, with the playbook played by hand."""

    def __init__(self, doors: Doors, playbooks: PlaybookByHand) -> None:
        self._doors = doors
        self._playbooks = playbooks

        self.connect = doors.connect

    @asynccontextmanager
    async def open(self, kubeconfig: Kubeconfig, **options: Any) -> AsyncIterator[Door]:
        async with self._doors.open(kubeconfig, **options) as door:
            yield replace(door, _playbooks=self._playbooks)  # type: ignore[arg-type]


class ByHand:
    """One service, one cluster, and the steps between them."""

    def __init__(self, settings: Settings, service: Service, client: httpx.AsyncClient) -> None:
        self.client = client
        self.database = service.edge.database
        self.notices = service.long_work.notices
        self.journals = service.long_work.journals
        self.endings = OperationActivities(service.edge.database, service.long_work.operations)
        self.playbooks = PlaybookByHand()
        self._settings = settings
        self._vault: Vault = service.edge.service(Vault)

    def access(self, *, allow_local: bool = True) -> ClusterAccess:
        """The way to clusters."""
        doors: Any = DoorsByHand(make_doors(self._settings), self.playbooks)
        return ClusterAccess(self.database, self._vault, doors, clock=SystemClock(), allow_local=allow_local)

    @asynccontextmanager
    async def administrator(self, server: KubernetesServer) -> AsyncIterator[ClusterClient]:
        """Somebody with all rights in the cluster."""
        kubeconfig = read_kubeconfig(server.kubeconfig(), now=SystemClock().now(), allow_local=True)
        async with ClusterClient(kubeconfig) as client:
            yield client

    def onboarding(self, journals: Journals | None = None) -> OnboardingActivities:
        """The steps of onboarding."""
        return OnboardingActivities(
            self.database,
            self.access(),
            self._vault,
            journals or self.journals,
            SystemClock(),
            addons=(nfd.addon(self._settings.addons), gpu_operator.addon(self._settings.addons)),
            models_namespace=self._settings.deployments.namespace,
        )

    def deletion(self, *, allow_local: bool = True) -> DeletionActivities:
        """The steps of deletion."""
        access = self.access(allow_local=allow_local)
        steps = self.addon_steps(access)
        return DeletionActivities(
            self.database,
            access,
            self.journals,
            steps,
            Catalogue.of(self._settings.addons),
            models_namespace=self._settings.deployments.namespace,
        )

    def addon_steps(self, access: ClusterAccess | None = None) -> AddonSteps:
        """How steps of add-ons are done."""
        return AddonSteps(self.database, access or self.access(), self.journals, self._settings.addons)

    async def registered(self, name: str = "lab") -> UUID:
        """Id of a new cluster."""
        made = await self.client.post("/clusters", json={"name": name, "provider": "ON_PREMISES"})
        assert made.status_code == 201, made.text
        return UUID(made.json()["id"])

    async def asked(self, cluster_id: UUID, kubeconfig: str, **more: Any) -> OnboardingPayload:
        """What the steps of an onboarding get that was asked for."""
        answer = await self.client.post(f"/clusters/{cluster_id}/onboard", json={"kubeconfig": kubeconfig, **more})
        assert answer.status_code == 202, answer.text
        return await self.payload(answer)

    async def asked_to_delete(self, cluster_id: UUID) -> OnboardingPayload:
        """What the steps of a deletion get that was asked for."""
        answer = await self.client.delete(f"/clusters/{cluster_id}")
        assert answer.status_code == 202, answer.text
        return await self.payload(answer)

    async def payload(self, answer: httpx.Response) -> OnboardingPayload:
        """What the workflow of an answer's operation gets, whoever held the cluster before."""
        operation_id = UUID(answer.json()["operation_id"])
        async with self.database.reading() as session:
            operation = await session.get(Operation, operation_id)
            assert operation is not None
        return OnboardingPayload(operation_id=operation_id, subject_id=operation.subject_id, **operation.payload)

    async def succeeded(self, payload: OnboardingPayload) -> None:
        """The operation has come to its end."""
        await self.endings.mark_succeeded(payload, CALL)

    async def failed(self, payload: OnboardingPayload, step: str) -> None:
        """The operation was given up in a step."""
        facts = payload.model_dump(include={"operation_id", "subject_id", "attempt"})
        await self.endings.mark_failed(Ending(**facts, step=step, type="ServerFailed", detail="It is away."), CALL)

    async def row(self, cluster_id: UUID) -> Cluster:
        """The cluster as stored."""
        async with self.database.reading() as session:
            found = await session.get(Cluster, cluster_id)
            assert found is not None
            return found

    async def set(self, cluster_id: UUID, **values: Any) -> None:
        """Change the row."""
        async with self.database.writing() as session:
            await session.execute(update(Cluster).where(Cluster.id == cluster_id).values(**values))

    async def uploads(self, cluster_id: UUID) -> int:
        """How many uploaded kubeconfigs are kept."""
        async with self.database.reading() as session:
            return len(list(await session.scalars(select(Credential).where(Credential.cluster_id == cluster_id))))

    async def step(self, payload: OnboardingPayload, name: str) -> OperationStep:
        """A step as stored."""
        async with self.database.reading() as session:
            found = await session.get(OperationStep, (payload.operation_id, name))
            assert found is not None
            return found


CALL = Execution("instance", "call")


@pytest.fixture
async def by_hand(cluster_settings: Settings) -> AsyncIterator[ByHand]:
    """The steps of a service that accepts clusters on this machine and has no engine."""
    service = quiet_service(cluster_settings)
    async with running(service) as app, client_of(app) as client:
        yield ByHand(cluster_settings, service, client)


@pytest.fixture
def bare_cluster() -> Iterator[KubernetesServer]:
    """A cluster without machines, which must know all that it is given."""
    with KubernetesServer() as server:
        yield server
        assert dropped_fields(server) == []
