"""What one turn of a workflow means. Pure: no clock, no database, no network.

A turn takes the messages that wait for an instance, shows them with the history to the worker, and turns the worker's
answer into an Outcome: everything that has to be written, in one transaction.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from budcluster.durable.sidecar import events
from budcluster.durable.sidecar.conclusion import Conclusion, Outcome
from budcluster.durable.sidecar.instances import Instance, Past, Turn, Waiting
from budcluster.durable.sidecar.limits import Limits
from budcluster.durable.sidecar.protos import FAILED, pb


def begin(instance: Instance, past: Past, inbox: Sequence[Waiting], now: datetime) -> Turn:
    """Put the waiting messages in order and drop those that must not be seen (again)."""
    started = events.event(now, workflowStarted=pb.WorkflowStartedEvent())
    taken: list[tuple[int, pb.HistoryEvent]] = []
    seen = set(past.settled)
    for message in inbox:
        if message.execution_id not in (None, instance.execution_id):
            continue
        key = events.resolves(message.event)
        if key is not None and key in seen:
            continue
        if key is not None:
            seen.add(key)
        # Events raised while a new generation was being made lie before its start and before what it carries over.
        taken.append((0 if key == ("start", 0) else 1 if message.execution_id else 2, message.event))
    if any(place == 0 for place, _ in taken):
        taken.sort(key=lambda placed: placed[0])
    ordered = [message for _, message in taken]
    terminating = any(message.HasField("executionTerminated") for message in ordered)
    return Turn(instance, past, [started, *ordered], [message.id for message in inbox], terminating)


def conclude(
    turn: Turn, response: pb.WorkflowResponse, *, now: datetime, limits: Limits, new_id: Callable[[], str]
) -> Outcome:
    """Turn the worker's answer into what has to be written.

    Raises PayloadTooLarge when the worker should be told that its answer carries too much.
    """
    _check_payloads(response, limits)
    outcome = Conclusion(turn, response, now, new_id).outcome()
    grown = turn.past.size + sum(happened.ByteSize() for happened in outcome.history)
    if grown <= limits.history_bytes or outcome.is_final or outcome.next_generation is not None:
        return outcome
    message = (
        f"The history has {grown} bytes and at most {limits.history_bytes} are allowed; "
        "split the work into child workflows or continue as new."
    )
    return Conclusion(turn, failed("HistoryTooLarge", message), now, new_id).outcome()


def failed(error_type: str, message: str) -> pb.WorkflowResponse:
    """The answer of a worker whose workflow raised, for failures that the sidecar finds itself."""
    action = pb.WorkflowAction(id=-1)
    action.completeWorkflow.workflowStatus = FAILED
    action.completeWorkflow.failureDetails.CopyFrom(events.failure(error_type, message))
    return pb.WorkflowResponse(actions=[action])


def _check_payloads(response: pb.WorkflowResponse, limits: Limits) -> None:
    limits.check("The custom status", response.customStatus.value)
    for action in response.actions:
        match action.WhichOneof("workflowActionType"):
            case "scheduleTask":
                limits.check(f"The input of activity {action.scheduleTask.name!r}", action.scheduleTask.input.value)
            case "createChildWorkflow":
                child = action.createChildWorkflow
                limits.check(f"The input of child workflow {child.name!r}", child.input.value)
            case "completeWorkflow":
                limits.check("The output of the workflow", action.completeWorkflow.result.value)
            case _:
                pass
