"""Bringing a deployment up, step by step: load, act, apply. Each may run twice and be killed at any point."""

import base64
import json
from contextlib import nullcontext
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from budcluster.cluster.access import ClusterAccess
from budcluster.cluster.activities import lines_to
from budcluster.cluster.verdicts import verdicts
from budcluster.config import DeploymentSettings
from budcluster.credentials.models import Credential, CredentialPurpose
from budcluster.credentials.services import CredentialService
from budcluster.deployment.admission import field_of, token_of
from budcluster.deployment.contracts import ReleasePayload
from budcluster.deployment.errors import ConfigNotUsable
from budcluster.deployment.helm_utils import ReleaseLocks, release_of
from budcluster.deployment.leftovers import PODS_AND_OWNERS, left_after, remove_secrets
from budcluster.deployment.options import DeploymentConfig
from budcluster.deployment.planning import pull_secret_name, secret_name
from budcluster.deployment.records import DeploymentFacts, Records
from budcluster.deployment.takeover import take_over
from budcluster.deployment.turns import Turns
from budcluster.deployment.values import without_surge
from budcluster.deployment.watching.rollout import Lookout, Target, settled
from budcluster.durable.execution import Execution
from budcluster.kit.database import Database
from budcluster.kit.keyed_locks import KeyedLocks
from budcluster.kube.door import Door
from budcluster.kube.errors import NotFound
from budcluster.kube.ownership import LABEL_DEPLOYMENT
from budcluster.kube.resources import NAMESPACES, SECRETS
from budcluster.operations.journal import Journals, StepJournal

_PLAYBOOK_S: Final = 120.0
_RESTORED_S: Final = 20.0
"""Long enough for copies that still run to be counted."""
_AT_ONCE: Final = 8
"""Steps at work on a cluster: few tools run at a time anyway, and requests come in while hundreds begin."""


class Nothing(BaseModel):
    """A step that leaves no facts behind."""


class ReleaseActivities:
    """The steps that put a release into a cluster, and take it out again."""

    def __init__(
        self,
        records: Records,
        access: ClusterAccess,
        credentials: CredentialService,
        database: Database,
        journals: Journals,
        locks: ReleaseLocks,
        turns: Turns,
        settings: DeploymentSettings,
    ) -> None:
        self._records = records
        self._access = access
        self._credentials = credentials
        self._database = database
        self._journals = journals
        self._locks = locks
        self._turns = turns
        self._settings = settings
        self._namespaces: KeyedLocks[tuple[UUID, str]] = KeyedLocks()
        self._places: KeyedLocks[UUID] = KeyedLocks(at_once=_AT_ONCE)

    async def check_plan(self, payload: ReleasePayload, _: Execution) -> None:
        """Reach the cluster, and see that the chart renders with the values."""

        async def act(step: StepJournal) -> Nothing:
            with verdicts():
                facts = await self._records.facts(payload.subject_id)
                # What a start takes would hold up those who asked before it and are not answered yet.
                await self._turns.after_others(facts.cluster_id)
                await self._records.begin(facts.id)
                revision = await self._records.revision(facts.id, payload.revision, replicas=payload.replicas)
                opened = self._access.open(facts.cluster_id, operation=str(payload.operation_id))
                async with opened as door:
                    # Before a place is taken: where the cluster is away, nobody waits for those who find that out.
                    await door.client.read("/version")
                    step.percent(50)
                    async with self._places.hold(facts.cluster_id):
                        await door.helm.require_sound(release_of(facts.release, facts.namespace, revision.values))
            return Nothing()

        await self._journals.of(payload).run("check_plan", act, gives=Nothing)

    async def prepare_namespace(self, payload: ReleasePayload, _: Execution) -> None:
        """Make the namespace where it is absent."""

        async def act(step: StepJournal) -> Nothing:
            with verdicts():
                facts = await self._records.facts(payload.subject_id)
                opened = self._access.open(
                    facts.cluster_id, operation=str(payload.operation_id), on_line=lines_to(step)
                )
                place = self._places.hold(facts.cluster_id)
                # Of many that begin at once, the first makes it and the others find it.
                async with place, opened as door, self._namespaces.hold((facts.cluster_id, facts.namespace)):
                    if await _has_namespace(door, facts.namespace):
                        step.percent(99, detail="It is there already")
                        return Nothing()
                    variables = {"namespace": facts.namespace}
                    await door.play("deploy_runtime.yml", variables=variables, timeout_s=_PLAYBOOK_S)
            return Nothing()

        await self._journals.of(payload).run("prepare_namespace", act, gives=Nothing)

    async def write_secrets(self, payload: ReleasePayload, _: Execution) -> None:
        """Open the credentials and bring them into the cluster, by API only."""

        async def act(step: StepJournal) -> Nothing:
            written = await self._bring_secrets(payload, payload.revision)
            step.percent(99, detail=f"{written} secrets" if written else "No secrets are needed")
            return Nothing()

        await self._journals.of(payload).run("write_secrets", act, gives=Nothing)

    async def forget_secrets(self, payload: ReleasePayload, _: Execution) -> None:
        """Take the secrets out of the cluster."""
        async with self._journals.of(payload).undoing("write_secrets"):
            with verdicts():
                facts = await self._records.facts(payload.subject_id)
                if facts.is_being_deleted:
                    return
                async with self._access.open(facts.cluster_id, operation=str(payload.operation_id)) as door:
                    await remove_secrets(door, facts)

    async def restore_secrets(self, payload: ReleasePayload, _: Execution) -> None:
        """Bring the secrets from before back: the pods that run read them when they start anew."""
        async with self._journals.of(payload).undoing("write_secrets"):
            facts = await self._records.facts(payload.subject_id)
            if not facts.is_being_deleted:
                await self._bring_secrets(payload, payload.previous_revision)

    async def install_release(self, payload: ReleasePayload, _: Execution) -> None:
        """Bring the release to the revision; the pods are waited for afterwards."""

        async def act(step: StepJournal) -> Nothing:
            await self._ensure(payload, step, payload.revision, payload.replicas)
            return Nothing()

        await self._journals.of(payload).run("install_release", act, gives=Nothing)

    async def withdraw_release(self, payload: ReleasePayload, _: Execution) -> None:
        """Uninstall what a first start left; a cache stays for the next try."""
        async with self._journals.of(payload).undoing("install_release") as step:
            with verdicts():
                facts = await self._records.facts(payload.subject_id)
                if facts.is_being_deleted:
                    step.log("It is being deleted: that takes the release out.")
                    return
                opened = self._access.open(
                    facts.cluster_id, operation=str(payload.operation_id), on_line=lines_to(step)
                )
                async with opened as door:
                    async with self._locks.hold(facts.cluster_id, facts.namespace, facts.release):
                        timeout_s = self._settings.helm_timeout_s
                        await door.helm.remove(facts.release, facts.namespace, timeout_s=timeout_s, wait=False)
                    # Not Helm's wait: a pod on a node that is lost would hold up the end of the operation for hours.
                    if left := await left_after(
                        door, facts, PODS_AND_OWNERS, patience_s=self._settings.removal_timeout_s
                    ):
                        step.log(f"Not gone yet: {', '.join(left)}")

    async def restore_release(self, payload: ReleasePayload, _: Execution) -> None:
        """Go back to the secrets, the revision and the copies from before.

        Copies that have to start anew are not waited for, because a wish to delete or to change would wait as long:
        the deployment heals by itself once they are ready.
        """
        number, replicas = payload.previous_revision, payload.previous_replicas
        async with self._journals.of(payload).undoing("install_release") as step:
            facts = await self._records.facts(payload.subject_id)
            if facts.is_being_deleted:
                step.log("It is being deleted: what ran before is not brought back.")
                return
            await self._bring_secrets(payload, number)
            await self._ensure(payload, step, number, replicas, is_way_back=True)
            step.log(f"Back at revision {number} with {replicas} copies.")
            with verdicts():
                target = Target(str(facts.id), facts.namespace, facts.release, replicas)
                async with self._access.open(facts.cluster_id, operation=str(payload.operation_id)) as door:
                    sight = await settled(Lookout(door.client, target), _RESTORED_S)
            await self._records.saw(facts.id, ready=sight.ready)

    async def _bring_secrets(self, payload: ReleasePayload, number: int) -> int:
        """How many Secrets the revision has, after all were written."""
        with verdicts():
            facts = await self._records.facts(payload.subject_id)
            revision = await self._records.revision(facts.id, number, replicas=payload.replicas)
            operation = str(payload.operation_id)
            bodies = [
                *await self._environment(facts, revision.config, operation),
                *await self._registry_login(facts, revision.config, operation),
            ]
            if not bodies:
                return 0
            async with self._access.open(facts.cluster_id, operation=operation) as door:
                for body in bodies:
                    await door.client.apply(SECRETS, body, namespace=facts.namespace, force=True)
        return len(bodies)

    async def _ensure(
        self, payload: ReleasePayload, step: StepJournal, number: int, replicas: int, *, is_way_back: bool = False
    ) -> None:
        """Bring the release to a revision, whatever others did to its objects meanwhile."""
        occasion = f"operation {payload.operation_id}, attempt {payload.attempt}{', undone' * is_way_back}"
        with verdicts():
            facts = await self._records.facts(payload.subject_id)
            values = (await self._records.revision(facts.id, number, replicas=replicas)).values
            if is_way_back or number == payload.previous_revision:
                # The strategy of the revision was chosen for the room that there was then; the spare GPU may be taken
                # by now. Nothing is lost: on the way back the good old copies survive, as theirs is the newest
                # ReplicaSet again, and where only the number of copies changes none is replaced.
                leaving = await self._records.revision(facts.id, payload.revision, replicas=replicas)
                values = without_surge(values, leaving=leaving.values if is_way_back else None)
            opened = self._access.open(facts.cluster_id, operation=str(payload.operation_id), on_line=lines_to(step))
            place = nullcontext() if is_way_back else self._places.hold(facts.cluster_id)
            async with place, opened as door, self._locks.hold(facts.cluster_id, facts.namespace, facts.release):
                wanted = release_of(facts.release, facts.namespace, values)
                timeout_s = self._settings.helm_timeout_s
                scales = payload.revision == payload.previous_revision
                await take_over(door.client, facts.namespace, facts.release, spares_pods=scales)
                done = await door.helm.ensure(wanted, timeout_s=timeout_s, wait=False, repair=occasion)
        step.percent(99, detail=f"Helm revision {done.number}")

    async def _environment(
        self, facts: DeploymentFacts, config: DeploymentConfig, operation: str
    ) -> list[dict[str, Any]]:
        values: dict[str, str] = {}
        if (hub := config.hugging_face_credential_id) is not None:
            opened = await self._credentials.open_(hub, purpose=CredentialPurpose.HUGGING_FACE, operation=operation)
            values["HF_TOKEN"] = token_of(opened.reveal())
        for choice in config.secrets:
            async with self._database.reading() as session:
                credential = await session.get(Credential, choice.credential_id)
            purpose = credential.purpose if credential else CredentialPurpose.HUGGING_FACE
            opened = await self._credentials.open_(choice.credential_id, purpose=purpose, operation=operation)
            try:
                values[choice.env] = field_of(opened.reveal(), choice.field)
            except KeyError:
                raise ConfigNotUsable("secrets", f"the credential for {choice.env} has no {choice.field}") from None
        return [_secret(facts, secret_name(facts.release), "Opaque", values)] if values else []

    async def _registry_login(
        self, facts: DeploymentFacts, config: DeploymentConfig, operation: str
    ) -> list[dict[str, Any]]:
        if config.registry_credential_id is None:
            return []
        opened = await self._credentials.open_(
            config.registry_credential_id, purpose=CredentialPurpose.REGISTRY, operation=operation
        )
        login = json.loads(opened.reveal())
        auth = base64.b64encode(f"{login['username']}:{login['password']}".encode()).decode()
        entry = {"username": login["username"], "password": login["password"], "auth": auth}
        document = json.dumps({"auths": {login["server"]: entry}})
        kind = "kubernetes.io/dockerconfigjson"
        return [_secret(facts, pull_secret_name(facts.release), kind, {".dockerconfigjson": document})]


async def _has_namespace(door: Door, name: str) -> bool:
    """Asked first: Ansible takes seconds of processor time, and hundreds of deployments share one namespace."""
    try:
        found = await door.client.get(NAMESPACES, name)
    except NotFound:
        return False
    return not found["metadata"].get("deletionTimestamp")


def _secret(facts: DeploymentFacts, name: str, kind: str, values: dict[str, str]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "budcluster", LABEL_DEPLOYMENT: str(facts.id)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": facts.namespace, "labels": labels},
        "type": kind,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }
