"""The steps that wait until a release serves and then ask it one prompt."""

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel

from budcluster.cluster.access import ClusterAccess
from budcluster.cluster.verdicts import verdicts
from budcluster.deployment.contracts import ReleasePayload
from budcluster.deployment.leftovers import remove_secrets
from budcluster.deployment.records import DeploymentFacts, Records, endpoints_of
from budcluster.deployment.values import secrets_in
from budcluster.deployment.watching.rollout import Lookout, Sight, Target, is_final
from budcluster.durable.errors import NonRetryableError
from budcluster.durable.execution import Execution
from budcluster.kit.cancellation import raise_if_cancelled
from budcluster.kit.clock import Clock
from budcluster.kube.diagnosis import Finding
from budcluster.kube.door import Door
from budcluster.kube.errors import KubeError
from budcluster.operations.journal import Journals, StepJournal

_LOOK_EVERY_S: Final = 15.0
"""Without a change that was told of: logs grow quietly."""
_OUTAGE_PAUSE_S: Final = 3.0
_LONGEST_BUDGET_S: Final = 7 * 86_400
_SETTLE_S: Final = 0.5
"""Pods change in bursts: one look for all of them."""
_SLACK_S: Final = 120
"""Beyond the startup budget, which begins when the container does."""
_PATIENCE_S: Final = 20.0
"""How long a cause may stand that may still pass: a registry's hiccup, a Secret that is being written."""
_SMOKE_TRIES: Final = 20
_SMOKE_PAUSE_S: Final = 1.5
_OUTAGE_S: Final = 600.0
"""For how long one try of the smoke test waits for an API server that went away; it is tried a dozen times."""
_PORT: Final = "http"


class RuntimeFailed(Exception):
    """The model does not start, and waiting does not help. The deployment's diagnosis has the evidence."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.detail} (pod {finding.pod or 'not made'})")
        self.next_step = finding.fix


class StartupTimedOut(Exception):
    """The copies were not ready within the startup timeout."""

    def __init__(self, waited_s: float, sight: Sight | None) -> None:
        finding = sight.finding if sight else None
        why = finding.detail if finding else (sight.progress.detail if sight else "the cluster could not be looked at")
        super().__init__(f"The copies were not ready after {waited_s:.0f} s: {why}")
        self.next_step = finding.fix if finding else "Give it a longer startup_timeout_s, or look at the pods' logs."


class SmokeFailed(Exception):
    """The copies are ready, and yet a prompt is not answered."""

    next_step = "Read the runtime's log: GET /deployments/{id}/logs."


class Served(BaseModel):
    """What the first answer said."""

    model: str = ""


@dataclass
class Told:
    """What the row was told last."""

    ready: int | None = None
    finding: str | None = None
    since: float = 0.0

    def pause_s(self, now: float, deadline: float) -> float:
        """Until the next look, if nothing rings before."""
        patience_ends = self.since + _PATIENCE_S
        due = [now + _LOOK_EVERY_S, deadline, *([patience_ends] if self.finding and patience_ends > now else [])]
        return max(min(due) - now, 0.0)


class ServingActivities:
    """Waiting and asking."""

    def __init__(self, records: Records, access: ClusterAccess, journals: Journals, clock: Clock) -> None:
        self._records = records
        self._access = access
        self._journals = journals
        self._clock = clock

    async def wait_until_serving(self, payload: ReleasePayload, _: Execution) -> None:
        """Until every copy of the revision is ready; ends early when that cannot come to be."""

        async def act(step: StepJournal) -> Served:
            with verdicts():
                facts = await self._records.facts(payload.subject_id)
                revision = await self._records.revision(facts.id, payload.revision, replicas=payload.replicas)
                budget_s = min(revision.values["progressDeadlineSeconds"], _LONGEST_BUDGET_S) + _SLACK_S
                began = await self._records.attempt_began_at(payload)
                started = await self._records.started_at(payload, step.name)
                left = started + timedelta(seconds=budget_s) - self._clock.now()
                target = Target(str(facts.id), facts.namespace, facts.release, payload.replicas)
                async with self._access.open(facts.cluster_id, operation=str(payload.operation_id)) as door:
                    lookout = Lookout(door.client, target, since=began)
                    await self._wait(lookout, facts, step, left_s=left.total_seconds(), budget_s=budget_s)
            return Served()

        await self._journals.of(payload).run("wait_until_serving", act, gives=Served)

    async def smoke_test(self, payload: ReleasePayload, _: Execution) -> None:
        """Ask for the models and one token, through the API server's proxy; then what no copy uses any more goes."""

        async def act(step: StepJournal) -> Served:
            is_parked = payload.replicas == 0
            with verdicts():
                facts = await self._records.facts(payload.subject_id)
                revision = await self._records.revision(facts.id, payload.revision, replicas=payload.replicas)
                async with self._access.open(facts.cluster_id, operation=str(payload.operation_id)) as door:
                    model = "" if is_parked else await _ask_until_answered(door, facts, step)
                    await remove_secrets(door, facts, used=secrets_in(revision.values))
                endpoints = endpoints_of(facts.release, facts.namespace, revision.values)
                await self._records.reached(facts.id, endpoints)
                if is_parked:
                    step.percent(99, detail="Parked: there is nothing to ask")
                else:
                    await self._records.served(facts.id, payload.revision)
            return Served(model=model)

        await self._journals.of(payload).run("smoke_test", act, gives=Served)

    async def _wait(
        self, lookout: Lookout, facts: DeploymentFacts, step: StepJournal, *, left_s: float, budget_s: float
    ) -> None:
        bell, seen = asyncio.Event(), Told()
        watcher = asyncio.create_task(lookout.ring_on_change(bell))
        loop = asyncio.get_running_loop()
        deadline, sight = loop.time() + left_s, None
        try:
            while True:
                raise_if_cancelled()
                pause_s = _OUTAGE_PAUSE_S
                try:
                    sight = await lookout.look()
                except KubeError as error:
                    if not error.is_temporary:
                        raise
                    step.percent(0, detail=f"{error} Waiting for it.")
                else:
                    await self._tell(facts, sight, step, seen, now=loop.time())
                    if sight.done:
                        return
                    pause_s = seen.pause_s(loop.time(), deadline)
                if loop.time() >= deadline:
                    timed_out = StartupTimedOut(budget_s, sight)
                    raise NonRetryableError(str(timed_out)) from timed_out
                await _rung(bell, pause_s)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _tell(self, facts: DeploymentFacts, sight: Sight, step: StepJournal, seen: Told, *, now: float) -> None:
        """Report the sight; ends the wait when it shows a cause that time does not cure."""
        step.percent(sight.progress.percent, detail=sight.progress.detail)
        if seen.ready != sight.ready:
            seen.ready = sight.ready
            await self._records.saw(facts.id, ready=sight.ready)
        kind = sight.finding.type if sight.finding else None
        if kind != seen.finding:
            seen.finding, seen.since = kind, now
            await self._records.diagnosed(facts.id, sight.finding)
            if sight.finding is not None:
                step.log(f"{sight.finding.detail} {sight.finding.fix}")
        if sight.finding is not None and is_final(sight.finding, now - seen.since, patience_s=_PATIENCE_S):
            failed = RuntimeFailed(sight.finding)
            raise NonRetryableError(str(failed)) from failed


async def _rung(bell: asyncio.Event, pause_s: float) -> None:
    try:
        # Not wait_for: in Python 3.11 that loses a cancellation which comes together with the bell.
        async with asyncio.timeout(pause_s):
            await bell.wait()
    except TimeoutError:
        return
    await asyncio.sleep(_SETTLE_S)
    bell.clear()


async def _ask_until_answered(door: Door, facts: DeploymentFacts, step: StepJournal) -> str:
    """The served model's id, after it has answered a prompt.

    Raises NonRetryableError from SmokeFailed, and KubeError when the API server stays away.
    """
    said = "no answer"
    for _ in range(_SMOKE_TRIES):
        try:
            return await _ask(door, facts)
        except KubeError as error:
            said = str(error)
            if error.is_temporary:
                # The proxy and the server that is asked through it fail alike: only the server's own word tells.
                await _until_there(door, step)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            said = f"the answer is not that of an OpenAI-compatible server ({type(error).__name__})"
        step.percent(10, detail=f"Not answered yet: {said}")
        await asyncio.sleep(_SMOKE_PAUSE_S)
    failed = SmokeFailed(f"The copies are ready, but do not answer a prompt: {said}")
    raise NonRetryableError(str(failed)) from failed


async def _until_there(door: Door, step: StepJournal) -> None:
    """Return once the API server answers: a model is not judged by an outage. Raises KubeError when it stays away."""
    deadline = asyncio.get_running_loop().time() + _OUTAGE_S
    while True:
        try:
            await door.client.read("/version")
        except KubeError as error:
            if not error.is_temporary or asyncio.get_running_loop().time() >= deadline:
                raise
            step.percent(10, detail=f"{error} Waiting for it.")
        else:
            return
        await asyncio.sleep(_OUTAGE_PAUSE_S)


async def _ask(door: Door, facts: DeploymentFacts) -> str:
    listed = json.loads(await door.client.ask_service(facts.namespace, facts.release, "/v1/models", port=_PORT))
    model = str(listed["data"][0]["id"])
    prompt = {"model": model, "prompt": "Hello", "max_tokens": 1}
    answer: dict[str, Any] = json.loads(
        await door.client.ask_service(
            facts.namespace, facts.release, "/v1/completions", port=_PORT, method="POST", body=prompt
        )
    )
    if not isinstance(answer["choices"][0]["text"], str):
        raise TypeError("no text")
    return model
