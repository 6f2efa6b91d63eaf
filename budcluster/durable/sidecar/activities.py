"""Runs activities: hands them to workers and carries their results to their instances, exactly once."""

import asyncio
from datetime import UTC, datetime

import structlog

from budcluster.durable.sidecar import events
from budcluster.durable.sidecar.desk import Desk, RunningTask, RunningTurn
from budcluster.durable.sidecar.instances import Waiting
from budcluster.durable.sidecar.protos import pb
from budcluster.durable.sidecar.rows import Finished, Lease, TaskLease
from budcluster.durable.sidecar.turns import Turns

log = structlog.get_logger(__name__)


class Activities:
    """The activities of one process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._store = desk.store
        self.turns = Turns(desk, begin_task=self.begin)

    def begin(self, task: TaskLease) -> None:
        """Hand a leased activity to a worker."""
        desk = self._desk
        if not desk.streams or task.token not in desk.claimed:
            desk.spawn(desk.give_back([task.token]))
            return
        if task.deliveries > desk.limits.deliveries:
            desk.spawn(self._give_up(task))
            return
        scheduled = task.event.taskScheduled
        request = pb.ActivityRequest(
            name=scheduled.name, taskId=task.task_id, taskExecutionId=scheduled.taskExecutionId
        )
        if scheduled.HasField("version"):
            request.version.CopyFrom(scheduled.version)
        if scheduled.HasField("input"):
            request.input.CopyFrom(scheduled.input)
        request.workflowInstance.instanceId = task.instance_id
        request.workflowInstance.executionId.value = task.execution_id
        stream = desk.streams.for_task()
        desk.tasks[task.token] = RunningTask(task, stream)
        stream.send_task(task.token, request)

    async def _give_up(self, task: TaskLease) -> None:
        deliveries = self._desk.limits.deliveries
        self._desk.counters.deliveries_given_up += 1
        message = (
            f"Activity {task.event.taskScheduled.name!r} was handed to a worker {deliveries} times and never "
            "finished: it seems to end the process. Look at the logs of the workers, then run it anew."
        )
        details = events.failure("WorkerLost", message, final=True)
        await self._finish(task, events.task_failed(datetime.now(UTC), task.task_id, details))

    async def complete(self, response: pb.ActivityResponse) -> None:
        """A worker's result of an activity. Raises PayloadTooLarge; the worker reports a failure then."""
        desk = self._desk
        running = desk.tasks.get(response.completionToken)
        if running is None:
            desk.counters.results_unknown += 1
            log.info("workflow_task.unknown_result_dropped", instance_id=response.instanceId)
            return
        name = running.lease.event.taskScheduled.name
        try:
            desk.limits.check(f"The result of activity {name!r}", response.result.value)
        except ValueError:
            desk.counters.tasks_failed_by_limit += 1
            raise
        del desk.tasks[response.completionToken]
        running.stream.tokens.discard(response.completionToken)
        event = events.task_completed(datetime.now(UTC), running.lease.task_id, response)
        await asyncio.shield(desk.spawn(self._finish(running.lease, event)))

    async def _finish(self, task: TaskLease, event: pb.HistoryEvent) -> None:
        desk = self._desk
        token = desk.turn_token()
        early = None if token is None else self._begin_early(token, task, event)
        owner = desk.owner() or 0
        try:
            finished = await desk.claiming(
                [token],
                self._store.patiently(lambda: self._store.finish_task(task, event, owner=owner, turn_token=token)),
            )
        except BaseException:
            self.turns.drop(early)
            raise
        desk.unclaim([task.token])
        if finished is None:
            self.turns.drop(early)
            desk.unclaim([token])
            desk.counters.results_unknown += 1
            log.info("workflow_task.lease_lost", instance_id=task.instance_id, task_id=task.task_id)
            return
        desk.counters.tasks_finished += 1
        await self._go_on(finished, early, token)

    def _begin_early(self, token: str, task: TaskLease, event: pb.HistoryEvent) -> RunningTurn | None:
        """The turn that this result wakes, where nothing else is known to go on with the instance."""
        if task.instance_id in self._desk.by_instance:
            return None
        known = self._desk.histories.take_latest(task.instance_id, task.execution_id)
        if known is None:
            return None
        instance, past = known
        expected = Lease(token, instance, [Waiting(0, task.execution_id, event)])
        return self.turns.begin_early(expected, past)

    async def _go_on(self, finished: Finished, early: RunningTurn | None, token: str | None) -> None:
        desk, lease = self._desk, finished.lease
        if lease is None:
            self.turns.drop(early)
            desk.unclaim([token])
            desk.nudge(finished.instance_id)
            await desk.announce(finished.instance_id)
        elif early is None:
            await self.turns.begin(lease)
        elif lease.instance == early.lease.instance:
            await self.turns.confirm(early, lease)
        else:
            # Another replica had a turn meanwhile: what the worker was shown is out of date.
            self.turns.drop(early)
            await desk.give_back([lease.token], uncounted=True)
