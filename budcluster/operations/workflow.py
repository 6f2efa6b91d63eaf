"""The way of every long piece of work: begin, do the steps in order, and on trouble take back what was done.

A feature declares its steps once; requests show them from the start, the orchestrator runs them:

    STEPS = (
        Step("apply_terraform", "Create the cluster", weight=600, act=APPLY_TERRAFORM, undo=DESTROY_TERRAFORM),
        Step("store_kubeconfig", "Keep the credential", weight=5, act=STORE_KUBECONFIG, keeps=True),
        Step("install_nfd", "Detect the hardware", weight=60, act=INSTALL_NFD),
    )

    def provision_cluster(ctx: Context, payload: OperationPayload) -> Steps[None]:
        yield from run_steps(ctx, payload, STEPS)

    operation = await operations.request(session, steps=STEPS, workflow=PROVISION_CLUSTER, ...)

An activity tells about its step with `journal.run("apply_terraform", ...)`, which is also how a wish to cancel reaches
it. Whether trouble was a failure or a cancellation makes no difference to the way back; the end says which it was.
What the feature's own row becomes is decided by its `Follower`, in the transaction that ends the operation.

Deterministic: no clock, no I/O, nothing but refs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from budcluster.durable.refs import ActivityRef, Context, StepFailed, Steps
from budcluster.operations.contracts import Ending, OperationPayload, StepPlan
from budcluster.operations.refs import MARK_FAILED, MARK_STARTED, MARK_SUCCEEDED


@dataclass(frozen=True)
class Step(StepPlan):
    """One step with what does it and what takes it back. Both are given the workflow's payload."""

    act: ActivityRef[Any, Any] = field(kw_only=True)
    undo: ActivityRef[Any, Any] | None = field(default=None, kw_only=True)
    """Takes back whatever `act` may have done, also a half of it or nothing. Idempotent."""
    keeps: bool = field(default=False, kw_only=True)
    """Once this step is done, neither it nor an earlier one is taken back: the rest may fail, the thing exists."""


def run_steps(ctx: Context, payload: OperationPayload, steps: Sequence[Step]) -> Steps[bool]:
    """Run the steps in order; when one fails or is cancelled, undo in reverse. Whether all of them were done."""
    started = yield from MARK_STARTED(ctx, payload)
    if not started.goes_on:
        return False
    begun: list[Step] = []
    for step in steps:
        # Before the attempt: a failed one may have made half of it.
        begun.append(step)
        try:
            yield from step.act(ctx, payload)
        except StepFailed as failure:
            undone, left = yield from _undo(ctx, payload, begun)
            yield from MARK_FAILED(ctx, _ending(payload, step, failure, undone=undone, left=left))
            return False
        if step.keeps:
            begun.clear()
    yield from MARK_SUCCEEDED(ctx, payload)
    return True


def _undo(ctx: Context, payload: OperationPayload, begun: Sequence[Step]) -> Steps[tuple[list[str], list[str]]]:
    undone: list[str] = []
    left: list[str] = []
    for step in reversed(begun):
        if step.undo is None:
            continue
        try:
            yield from step.undo(ctx, payload)
        except StepFailed:
            left.append(step.name)
        else:
            undone.append(step.name)
    return undone, left


def _ending(
    payload: OperationPayload, step: Step, failure: StepFailed, *, undone: list[str], left: list[str]
) -> Ending:
    return Ending(
        operation_id=payload.operation_id,
        subject_id=payload.subject_id,
        attempt=payload.attempt,
        step=step.name,
        type=failure.error_type,
        detail=failure.message,
        undone=undone,
        left=left,
    )
