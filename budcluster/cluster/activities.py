"""Taking a cluster into service, step by step: load, act, apply. Each may run twice and be killed at any point."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel
from sqlalchemy import String, cast, select, update
from sqlalchemy.exc import IntegrityError

from budcluster.cluster import present_addons
from budcluster.cluster.access import ClusterAccess, kubeconfig_owner
from budcluster.cluster.contracts import OnboardingPayload
from budcluster.cluster.errors import AnotherCluster, ClusterKnownAlready, ClusterManagedElsewhere, ClusterNotFound
from budcluster.cluster.models import Cluster
from budcluster.cluster.options import ClusterOptions
from budcluster.cluster.verdicts import verdicts
from budcluster.credentials.vault import Vault
from budcluster.durable.execution import Execution
from budcluster.hardware import addon_records
from budcluster.hardware.addons import Addon
from budcluster.hardware.survey import survey
from budcluster.kit.clock import Clock
from budcluster.kit.command import Line, LineSink
from budcluster.kit.database import Database
from budcluster.kube.client import ClusterClient
from budcluster.kube.door import Door
from budcluster.kube.errors import Forbidden
from budcluster.kube.helm_errors import CredentialRefused, ObjectRefused
from budcluster.kube.kubeconfig import Kubeconfig
from budcluster.operations.contracts import OperationPayload
from budcluster.operations.journal import Journals, StepJournal
from budcluster.provisioning import adoption
from budcluster.provisioning.ansible import onboard
from budcluster.provisioning.permissions import require_permissions


class Nothing(BaseModel):
    """A step that leaves no facts behind."""


class Prepared(BaseModel):
    """What is left to be done in a cluster that has an account of ours."""

    ends_other_tokens: bool = False
    """False where an older version prepared it: that one ended them itself."""


@dataclass(frozen=True)
class ClusterFacts:
    """What a step needs of the row, read in a short session."""

    id: UUID
    name: str
    options: ClusterOptions
    system_uid: str | None
    """Which cluster it was when it was reached before."""


class OnboardingActivities:
    """The steps that make a cluster ours to use; the add-ons have activities of their own."""

    def __init__(
        self,
        database: Database,
        access: ClusterAccess,
        vault: Vault,
        journals: Journals,
        clock: Clock,
        *,
        addons: Sequence[Addon],
        models_namespace: str,
    ) -> None:
        """`addons` are looked for, before anything is changed."""
        self._database = database
        self._access = access
        self._vault = vault
        self._journals = journals
        self._clock = clock
        self._addons = addons
        self._models_namespace = models_namespace

    async def check_access(self, payload: OnboardingPayload, _: Execution) -> None:
        """Reach the cluster, learn which one it is, and whether the credential is enough."""

        async def act(step: StepJournal) -> Nothing:
            with verdicts():
                facts = await self._facts(payload.subject_id)
                async with self._access.open_upload(payload.subject_id, operation=str(payload.operation_id)) as door:
                    identity = await adoption.identify(door.client)
                    if facts.system_uid not in {None, identity.system_uid}:
                        raise AnotherCluster(facts.name)
                    step.percent(40, detail=f"Kubernetes {identity.git_version}")
                    await require_permissions(
                        door.client,
                        manage_addons=facts.options.manage_addons,
                        models_namespace=self._models_namespace,
                    )
                    await self._require_unclaimed(door.client, facts, take_over=payload.take_over)
                    await self._record_identity(payload.subject_id, identity)
            return Nothing()

        await self._journals.of(payload).run("check_access", act, gives=Nothing)

    async def inspect_cluster(self, payload: OperationPayload, _: Execution) -> None:
        """Write down what the cluster is and has, before anything is changed."""

        async def act(step: StepJournal) -> Nothing:
            with verdicts():
                facts = await self._facts(payload.subject_id)
                async with self._access.open_upload(payload.subject_id, operation=str(payload.operation_id)) as door:
                    identity = await adoption.identify(door.client)
                    report = await adoption.report(
                        door.client,
                        identity,
                        manage_addons=facts.options.manage_addons,
                        models_namespace=self._models_namespace,
                    )
                    report["addons"] = await self._note_addons(payload.subject_id, door, report["warnings"])
            for warning in report["warnings"]:
                step.log(f"Warning: {warning}")
            await self._write(payload.subject_id, adoption_report=report, node_count=report["nodes"])
            return Nothing()

        await self._journals.of(payload).run("inspect_cluster", act, gives=Nothing)

    async def prepare_cluster(self, payload: OnboardingPayload, _: Execution) -> None:
        """Run the playbook, and keep the credential of our own service account; the uploaded one goes at the end."""

        async def act(step: StepJournal) -> Prepared:
            done = 0

            def on_task(task: str) -> None:
                nonlocal done
                done += 1
                step.percent(90 * done / onboard.TASKS, detail=task)

            with verdicts():
                facts = await self._facts(payload.subject_id)
                upload = self._access.open_upload(
                    payload.subject_id, operation=str(payload.operation_id), on_line=lines_to(step)
                )
                async with upload as door:
                    # Asked again: a retry may come hours after the first look.
                    await self._require_unclaimed(door.client, facts, take_over=payload.take_over)
                    own = await onboard.prepare(
                        door,
                        cluster_id=facts.id,
                        name=facts.name,
                        manage_addons=facts.options.manage_addons,
                        models_namespace=self._models_namespace,
                        take_over=payload.take_over,
                        on_task=on_task,
                    )
                async with self._access.connect(own) as client:
                    await adoption.identify(client)
                await self._keep_credential(facts, own)
            step.percent(99, detail="The service has an account of its own.")
            return Prepared(ends_other_tokens=True)

        prepared = await self._journals.of(payload).run("prepare_cluster", act, gives=Prepared)
        # Not before it is written down that the step is done: repeated until then, it needs the upload again.
        if prepared.ends_other_tokens:
            await self._end_other_tokens(payload)

    async def read_hardware(self, payload: OperationPayload, _: Execution) -> None:
        """Read the whole profile and keep it."""

        async def act(step: StepJournal) -> Nothing:
            with verdicts():
                async with self._access.open(payload.subject_id, operation=str(payload.operation_id)) as door:
                    profile = await survey(door.client)
            summary = profile.summary
            step.percent(90, detail=f"{summary.nodes} nodes, {summary.gpus} GPUs")
            await self._write(
                payload.subject_id,
                hardware_profile=as_json(profile),
                hardware_detected_at=self._clock.now(),
                node_count=summary.nodes,
                gpu_count=summary.gpus,
            )
            return Nothing()

        await self._journals.of(payload).run("read_hardware", act, gives=Nothing)

    async def _facts(self, cluster_id: UUID) -> ClusterFacts:
        async with self._database.reading() as session:
            cluster = await session.get(Cluster, cluster_id)
        if cluster is None:
            raise ClusterNotFound(cluster_id)
        return ClusterFacts(cluster.id, cluster.name, ClusterOptions.of(cluster), cluster.system_uid)

    async def _note_addons(self, cluster_id: UUID, door: Door, warnings: list[str]) -> list[dict[str, Any]]:
        """What is installed already, for the report; a credential that may not see it is worth a warning."""
        try:
            present = await present_addons.look(self._addons, door)
        except CredentialRefused:
            raise
        except (ObjectRefused, Forbidden) as error:
            warnings.append(f"What is installed already could not be seen: {error}")
            return []
        async with self._database.writing() as session:
            await addon_records.record_present(session, cluster_id, present)
        return present_addons.told(present)

    async def _end_other_tokens(self, payload: OnboardingPayload) -> None:
        with verdicts():
            async with self._access.open(payload.subject_id, operation=str(payload.operation_id)) as door:
                try:
                    await onboard.end_other_tokens(door.client, payload.subject_id)
                except adoption.ManagedElsewhere as error:
                    raise ClusterManagedElsewhere(error.claimed_as) from error

    async def _require_unclaimed(self, client: ClusterClient, facts: ClusterFacts, *, take_over: bool) -> None:
        try:
            await adoption.require_unclaimed(client, facts.id)
        except adoption.ManagedElsewhere as error:
            async with self._database.reading() as session:
                found = select(Cluster.id).where(cast(Cluster.id, String) == error.claimed_as)
                known = (await session.scalars(found)).one_or_none()
            if known is not None:
                raise ClusterKnownAlready(known) from error
            if not take_over:
                raise ClusterManagedElsewhere(error.claimed_as) from error

    async def _record_identity(self, cluster_id: UUID, identity: adoption.Identity) -> None:
        try:
            await self._write(cluster_id, kubernetes_version=identity.git_version, system_uid=identity.system_uid)
        except IntegrityError as error:
            async with self._database.reading() as session:
                found = select(Cluster.id).where(Cluster.system_uid == identity.system_uid)
                known = (await session.scalars(found)).one_or_none()
            if known is None:
                raise
            raise ClusterKnownAlready(known) from error

    async def _keep_credential(self, facts: ClusterFacts, own: Kubeconfig) -> None:
        sealed = self._vault.seal(own.to_json().encode(), kubeconfig_owner(facts.id))
        async with self._database.writing() as session:
            kept = await session.execute(
                update(Cluster)
                .where(Cluster.id == facts.id)
                .values(kubeconfig_encrypted=sealed, server=own.server, version=Cluster.version + 1)
                .returning(Cluster.id)
            )
            if kept.one_or_none() is None:
                raise ClusterNotFound(facts.id)

    async def _write(self, cluster_id: UUID, **values: Any) -> None:
        """Change the row; that it is gone is news for whoever wants the work, and they end it."""
        async with self._database.writing() as session:
            done = await session.execute(
                update(Cluster)
                .where(Cluster.id == cluster_id)
                .values(**values, version=Cluster.version + 1)
                .returning(Cluster.id)
            )
            if done.one_or_none() is None:
                raise ClusterNotFound(cluster_id)


def as_json(value: Any) -> Any:
    """Plain JSON data of dataclasses."""
    return orjson.loads(orjson.dumps(value))


def lines_to(step: StepJournal) -> LineSink:
    """A sink for the output of tools."""

    def sink(line: Line) -> None:
        if line.text.strip():
            step.log(line.text)

    return sink
